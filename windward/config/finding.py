"""What validation says about one field: where, what, how bad, and how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    ERROR = "error"
    """The object is refused."""
    WARNING = "warning"
    """The object is stored; it probably does not do what its author thinks."""


@dataclass(frozen=True, slots=True)
class Finding:
    path: str
    """Field path in JSON names, e.g. ``spec.http[0].route[1].weight``; ``""`` is the object itself."""
    code: str
    """Stable, kebab-case: unknown-field, wrong-type, required, out-of-range, invalid-value, conflict, duplicate,
    not-supported, unreachable, deprecated, ..."""
    message: str
    """What is wrong, without the path: ``must be between 0 and 100, is 120``."""
    fix: str = ""
    """How to mend it, when that can be said: ``did you mean "weight"?``"""
    severity: Severity = Severity.ERROR
