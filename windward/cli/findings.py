"""Showing findings: one line each for people, a flat list for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from windward.cli.output import print_data, say


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A finding with its place, as ``validate -o json`` prints it."""

    file: str
    line: int
    kind: str
    namespace: str
    name: str
    path: str
    severity: str
    code: str
    message: str
    fix: str

    def text(self) -> str:
        """``file:line: error: Kind/ns/name: field: message (fix)``."""
        where = f"{self.file}:{self.line}: " if self.file else ""
        what = f"{self.kind}/{self.namespace}/{self.name}: " if self.kind else ""
        path = f"{self.path}: " if self.path else ""
        fix = f" ({self.fix})" if self.fix else ""
        return f"{where}{self.severity}: {what}{path}{self.message}{fix}"


def show(rows: Sequence[Row], output: str) -> None:
    """Findings as data on stdout (json, yaml), or as lines on stderr."""
    if output == "table":
        for row in rows:
            say(row.text())
        return
    print_data(msgspec.to_builtins(list(rows)), output)


def errors(rows: Iterable[Row]) -> int:
    return sum(row.severity == "error" for row in rows)
