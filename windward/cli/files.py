"""Reading what -f names: files, folders, standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from windward.cli.failures import UserError

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
LIMIT_BYTES = 32 * 1024 * 1024


def read(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, text) of every file, in order; a folder's files in name order."""
    for name in names:
        if name == "-":
            yield "-", sys.stdin.read(LIMIT_BYTES)
            continue
        path = Path(name)
        files = [path] if not path.is_dir() else sorted(_inside(path))
        if not files:
            raise UserError(f"{name}: no .yaml, .yml or .json file in this folder")
        for file in files:
            try:
                if file.stat().st_size > LIMIT_BYTES:
                    raise UserError(f"{file}: larger than {LIMIT_BYTES // 1024 // 1024} MiB")
                yield str(file), file.read_text()
            except OSError as error:
                raise UserError(f"{file}: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{file}: not UTF-8 text ({error.reason} at byte {error.start})"
                ) from error


def _inside(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
