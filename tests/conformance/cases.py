"""What every suite's adapter gives back, and how the index names cases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Result:
    """One suite's outcome."""

    total: int = 0
    passed: int = 0
    na: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)

    def count(self, case: str, why: str) -> None:
        """One case: passed when there is nothing to say against it."""
        self.total += 1
        if why:
            self.failed.append({"id": case, "why": why})
        else:
            self.passed += 1

    def as_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, "total": self.total, "na": self.na, "failed": self.failed}


NOT_IMPLEMENTED = "not implemented"


def index(folder: Path, suite: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(id, entry) of every indexed case of a Pilot suite; an id is made unique by its item or document."""
    path = folder / "pilot" / "index.json"
    if not path.exists():
        return
    for entry in json.loads(path.read_text())["cases"]:
        if entry["suite"] == suite:
            part = entry.get("item", entry.get("doc", ""))
            yield f"{entry['id']}#{part}", entry


def not_implemented(cases: list[str]) -> Result:
    result = Result()
    for case in cases:
        result.count(case, NOT_IMPLEMENTED)
    return result
