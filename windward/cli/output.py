"""Printing: tables for people, JSON and YAML for programs. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def print_data(data: Any, output: str) -> None:
    """JSON or YAML, keys in their own order."""
    if output == "json":
        sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        return
    import yaml

    if isinstance(data, list):
        yaml.safe_dump_all(data, sys.stdout, sort_keys=False, allow_unicode=True)
        return
    yaml.safe_dump(data, sys.stdout, sort_keys=False, allow_unicode=True)


def print_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Left-aligned columns, two spaces apart, as kubectl prints them."""
    texts = [[*header], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(header))]
    for row in texts:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def say(line: str) -> None:
    sys.stderr.write(line + "\n")


def say_unanswered(pilots: Iterable[str]) -> None:
    """Whose proxies an answer leaves out."""
    for pilot in pilots:
        say(f"Pilot {pilot} does not answer: its proxies are missing here")
