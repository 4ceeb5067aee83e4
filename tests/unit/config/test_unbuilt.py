"""The list of what no builder reads yet: its paths are real fields, and each is found when set."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import pytest

from windward.config.registry import KINDS
from windward.config.unbuilt import UNBUILT, UNBUILT_VALUES, unbuilt_fields
from windward.config.walk import fields_of

PATHS = [(group, kind, path) for (group, kind), paths in UNBUILT.items() for path in paths]
VALUES = [
    (group, kind, path, value)
    for (group, kind), entries in UNBUILT_VALUES.items()
    for path, values in entries
    for value in sorted(values)
]


def bare(hint: Any) -> Any:
    """A type hint without Annotated and without None."""
    if get_origin(hint) is Annotated:
        return bare(get_args(hint)[0])
    if get_origin(hint) in {Union, types.UnionType}:
        return bare(next(part for part in get_args(hint) if part is not type(None)))
    return hint


def steps_of(spec: type[msgspec.Struct], path: str) -> Iterator[Any]:
    """The type behind every step of a path; raises KeyError where there is no such field."""
    current: Any = spec
    for step in path.split(".")[1:]:
        hint = bare(fields_of(current)[step.removesuffix("[]")][1])
        if step.endswith("[]"):
            assert get_origin(hint) is tuple
            hint = bare(get_args(hint)[0])
        yield hint
        current = hint


def with_value(path: str, value: Any) -> dict[str, Any]:
    """The smallest object that has a value at a path; lists have one element."""
    made = value
    for step in reversed(path.split(".")):
        made = {step.removesuffix("[]"): [made] if step.endswith("[]") else made}
    assert isinstance(made, dict)
    return made


@pytest.mark.parametrize(("group", "kind", "path"), PATHS)
def test_every_path_is_a_field_of_its_kind(group: str, kind: str, path: str) -> None:
    assert list(steps_of(KINDS[group, kind].spec_type, path))


@pytest.mark.parametrize(("group", "kind", "path"), PATHS)
def test_every_path_is_found_when_set_and_only_then(group: str, kind: str, path: str) -> None:
    exact = path.replace("[]", "[0]")
    assert exact in set(unbuilt_fields(group, kind, with_value(path, "x")))
    empties: tuple[Any, ...] = (None, "", 0, False, [], {})
    for empty in empties:
        assert exact not in set(unbuilt_fields(group, kind, with_value(path, empty)))


@pytest.mark.parametrize(("group", "kind", "path", "value"), VALUES)
def test_every_value_is_one_of_the_field(group: str, kind: str, path: str, value: str) -> None:
    enum = list(steps_of(KINDS[group, kind].spec_type, path))[-1]
    assert value in {member.value for member in enum}
    found = set(unbuilt_fields(group, kind, with_value(path, value)))
    assert path.replace("[]", "[0]") in found


def test_no_path_stands_twice() -> None:
    assert len(PATHS) == len(set(PATHS))


def test_each_element_is_named_by_its_index() -> None:
    raw = {"spec": {"http": [{}, {"mirror": {"host": "a"}}, "x", {"mirror": {"host": "b"}}]}}
    found = unbuilt_fields("networking.istio.io", "VirtualService", raw)
    assert list(found) == ["spec.http[1].mirror", "spec.http[3].mirror"]


def test_a_kind_without_entries_has_none() -> None:
    assert list(unbuilt_fields("example.com", "Nothing", {"spec": {"a": 1}})) == []
