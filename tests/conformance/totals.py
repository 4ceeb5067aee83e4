"""How many cases the suites have that are not run yet: they are reported as 0 of that many."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conformance.cases import Result, index, not_implemented


def indexed(suite: str) -> Callable[[Path], Result]:
    return lambda folder: not_implemented([case for case, _ in index(folder, suite)])


def simulation(folder: Path) -> Result:
    """One case an assertion: a call of a configuration, or a list of expected virtual hosts."""
    cases = []
    for case, entry in index(folder, "simulation"):
        loaded = json.loads((folder / "pilot" / entry["input"]).read_text())
        item = loaded[entry["item"]] if isinstance(loaded, list) else loaded
        calls = item.get("calls") or [None]
        cases += [f"{case}/{number}" for number, _ in enumerate(calls)]
    return not_implemented(cases)


def rows(path: str) -> Callable[[Path], Result]:
    """The rows of a JSON file: its list, or every list in it."""

    def count(folder: Path) -> Result:
        loaded = json.loads((folder / path).read_text())
        return not_implemented([f"{path}#{number}" for number in range(_rows(loaded))])

    return count


def _rows(loaded: Any) -> int:
    if isinstance(loaded, list):
        return len(loaded)
    if isinstance(loaded, dict):
        lists = [value for value in loaded.values() if isinstance(value, (list, dict))]
        return sum(len(value) for value in lists) or len(loaded)
    return 0


def files(folder_name: str, pattern: str) -> Callable[[Path], Result]:
    def count(folder: Path) -> Result:
        found = sorted((folder / folder_name).rglob(pattern))
        return not_implemented([str(path.relative_to(folder)) for path in found])

    return count


def jwt(folder: Path) -> Result:
    cases = []
    for name in ("json_web_signature_test.json", "json_web_key_test.json"):
        loaded = json.loads((folder / "citadel" / "jwt" / name).read_text())
        cases += [
            f"citadel/jwt/{name}#{test['tcId']}"
            for group in loaded["testGroups"]
            for test in group["tests"]
        ]
    return not_implemented(cases)


def limbo(folder: Path) -> Result:
    loaded = json.loads((folder / "citadel" / "limbo" / "limbo-local.json").read_text())
    return not_implemented([f"citadel/limbo#{case['id']}" for case in loaded["testcases"]])
