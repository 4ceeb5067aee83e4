"""From JSON to a Struct, reporting everything that is wrong and not just the first thing.

    raw value + type hints -> value of that type, or findings with exact paths

msgspec itself stops at the first error and names the parent of an unknown field; this walker reads the same Structs.
It never raises for any JSON.
"""

from __future__ import annotations

import math
import re
import types
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec

from windward.config.report import Report
from windward.config.types import Duration, parse_duration

LONGEST_TEXT: Final = 1_100_000
DEEPEST: Final = 40
MOST_ELEMENTS: Final = 20_000
LARGEST_NUMBER: Final = 2**64
_DIGITS: Final = re.compile(r"[0-9]{1,20}")

BAD: Final = object()
"""Stands for a value that could not be made; its finding is in the report."""


@cache
def fields_of(kind: type[msgspec.Struct]) -> dict[str, tuple[str, Any, bool]]:
    """JSON name -> (attribute, type hint, whether it has no default)."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.encode_name: (field.name, hints[field.name], field.required)
        for field in msgspec.structs.fields(kind)
    }


def walk_struct(kind: type[msgspec.Struct], raw: Any, report: Report, depth: int = 0) -> Any:
    """A Struct from a mapping; BAD when anything in it is wrong."""
    before = len(report.findings)
    made = walk_partial(kind, raw, report, depth)
    return made if len(report.findings) == before else BAD


def walk_partial(kind: type[msgspec.Struct], raw: Any, report: Report, depth: int = 0) -> Any:
    """A Struct of what is right in a mapping, so that rules can be asked about the rest; what is wrong is in the report.

    BAD only where there is no mapping at all.
    """
    if not isinstance(raw, dict):
        report.error("wrong-type", f"must be a mapping, is {name_of(raw)}")
        return BAD
    if depth > DEEPEST:
        report.error("too-deep", f"nested deeper than {DEEPEST} levels")
        return BAD
    fields, values = fields_of(kind), {}
    for key, value in raw.items():
        if key not in fields:
            _unknown(str(key), fields, report)
        elif value is not None:
            attribute, hint, _ = fields[key]
            made = walk(hint, value, report.at(key), depth + 1)
            if made is not BAD:
                values[attribute] = made
    missing = [
        key for key, (name, _, required) in fields.items() if required and name not in values
    ]
    for key in missing:
        report.at(key).error("required", "must be set")
    return BAD if missing else kind(**values)


def _unknown(key: str, fields: dict[str, tuple[str, Any, bool]], report: Report) -> None:
    near = get_close_matches(key, fields, n=1, cutoff=0.6)
    fix = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(fields))}"
    report.at(key[:100]).error("unknown-field", "there is no such field", fix)


def walk(hint: Any, raw: Any, report: Report, depth: int) -> Any:
    """A value of the hinted type, or BAD."""
    bounds: msgspec.Meta | None = None
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        bounds = next((note for note in notes if isinstance(note, msgspec.Meta)), None)
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        inner = next(argument for argument in get_args(hint) if argument is not type(None))
        return walk(inner, raw, report, depth)
    if origin is tuple:
        return _walk_list(get_args(hint)[0], raw, report, depth)
    if origin is dict:
        key_hint, value_hint = get_args(hint)
        return _walk_map(key_hint, value_hint, raw, report, depth)
    if hint is Any:
        return raw
    if issubclass(hint, msgspec.Struct):
        return walk_partial(hint, raw, report, depth)
    if issubclass(hint, Enum):
        return _walk_enum(hint, raw, report)
    if hint is Duration:
        return _walk_duration(raw, report)
    return _walk_scalar(hint, raw, bounds, report)


def _walk_list(hint: Any, raw: Any, report: Report, depth: int) -> Any:
    if not isinstance(raw, list):
        report.error("wrong-type", f"must be a list, is {name_of(raw)}")
        return BAD
    if len(raw) > MOST_ELEMENTS:
        report.error("too-large", f"has {len(raw)} elements, at most {MOST_ELEMENTS} are allowed")
        return BAD
    made = [walk(hint, value, report.at(index), depth + 1) for index, value in enumerate(raw)]
    return BAD if any(value is BAD for value in made) else tuple(made)


def _walk_map(key_hint: Any, hint: Any, raw: Any, report: Report, depth: int) -> Any:
    if not isinstance(raw, dict):
        report.error("wrong-type", f"must be a mapping, is {name_of(raw)}")
        return BAD
    made: dict[Any, Any] = {}
    bad = False
    for key, value in raw.items():
        entry = report.key(key)
        good_key: Any = str(key)
        if key_hint is not str:
            if isinstance(key, bool) or not _DIGITS.fullmatch(str(key)):
                entry.error("wrong-type", f"the key must be a number, is {key!r}")
                bad = True
                continue
            good_key = int(key)
        elif not isinstance(key, str):
            entry.error(
                "wrong-type", f"the key must be text, is {name_of(key)}", f'write it as "{key}"'
            )
            bad = True
            continue
        made[good_key] = walk(hint, value, entry, depth + 1)
        bad = bad or made[good_key] is BAD
    return BAD if bad else made


def _walk_enum(hint: type[Enum], raw: Any, report: Report) -> Any:
    names = [member.value for member in hint]
    if isinstance(raw, str) and raw in names:
        return hint(raw)
    near = get_close_matches(str(raw), names, n=1)
    fix = f"did you mean {near[0]}?" if near else ""
    report.error("invalid-value", f"must be one of {', '.join(names)}, is {show(raw)}", fix)
    return BAD


def _walk_duration(raw: Any, report: Report) -> Any:
    if not isinstance(raw, str):
        report.error(
            "wrong-type",
            f"must be a duration, is {name_of(raw)}",
            "write it as 1.5s, 10ms or 1h30m",
        )
        return BAD
    try:
        return parse_duration(raw)
    except ValueError as error:
        report.error("invalid-value", str(error))
        return BAD


def _walk_scalar(hint: type, raw: Any, bounds: msgspec.Meta | None, report: Report) -> Any:
    if hint is str:
        return _walk_text(raw, report)
    if hint is bool:
        if isinstance(raw, bool):
            return raw
        report.error("wrong-type", f"must be true or false, is {name_of(raw)}")
        return BAD
    good = isinstance(raw, int) and not isinstance(raw, bool)
    if good and abs(raw) > LARGEST_NUMBER:
        report.error("out-of-range", "must be a number of 64 bits")
        return BAD
    if hint is float:
        good = (good or isinstance(raw, float)) and math.isfinite(raw)
        if good:
            return float(raw)
    if not good:
        wanted = "a whole number" if hint is int else "a number"
        report.error("wrong-type", f"must be {wanted}, is {name_of(raw)}")
        return BAD
    if bounds is not None and not bounds.ge <= raw <= bounds.le:
        report.error("out-of-range", f"must be between {bounds.ge} and {bounds.le}, is {raw}")
        return BAD
    return raw


def _walk_text(raw: Any, report: Report) -> Any:
    if not isinstance(raw, str):
        fix = f'write it as "{raw}"' if isinstance(raw, (int, float, bool)) else ""
        report.error("wrong-type", f"must be text, is {name_of(raw)}", fix)
        return BAD
    if len(raw) > LONGEST_TEXT:
        report.error("too-large", f"has {len(raw)} characters, at most {LONGEST_TEXT} are allowed")
        return BAD
    if "\0" in raw:
        report.error("invalid-value", "must not contain a NUL character")
        return BAD
    return raw


def name_of(value: Any) -> str:
    """A JSON value's type in a user's words."""
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true or false",
        type(None): "nothing",
    }
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"the number {value}"
    return names.get(type(value), type(value).__name__)


def show(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
