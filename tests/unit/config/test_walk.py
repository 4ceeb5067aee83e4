"""The walker: everything wrong with a value at once, each at its exact path."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windward.config import walk as walking
from windward.config.report import Report
from windward.config.types import Duration, Int32, Spec, UInt32, parse_duration
from windward.config.walk import BAD, walk_struct


class Color(Enum):
    RED = "RED"
    GREEN = "GREEN"


class Leaf(Spec, frozen=True):
    name: str
    max_age: Duration | None = None


class Tree(Spec, frozen=True):
    leaf: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    by_name: dict[str, Leaf] = {}
    by_port: dict[UInt32, str] = {}
    color: Color = Color.RED
    flag: bool = False
    small: Int32 = 0
    big: UInt32 | None = None
    ratio: float = 0.0
    words: tuple[str, ...] = ()
    anything: Any = None
    from_: str = ""


class Deep(Spec, frozen=True):
    next: tuple[Tree, ...] = ()


class Chain(Spec, frozen=True):
    link: Chain | None = None


def walked(raw: Any, kind: type[msgspec.Struct] = Tree) -> tuple[Any, list[tuple[str, str]]]:
    report = Report("spec")
    made = walk_struct(kind, raw, report)
    return made, [(finding.path, finding.code) for finding in report.findings]


def test_a_full_value() -> None:
    made, findings = walked(
        {
            "leaf": {"name": "a", "maxAge": "1.5s"},
            "leaves": [{"name": "b"}],
            "byName": {"x/y": {"name": "c"}},
            "byPort": {"80": "http", 443: "tls"},
            "color": "GREEN",
            "flag": True,
            "small": -5,
            "big": 2**32 - 1,
            "ratio": 3,
            "words": ["a", ""],
            "anything": {"deep": [1, None]},
            "from": "here",
        }
    )
    assert findings == []
    assert made == Tree(
        leaf=Leaf(name="a", max_age=Duration(1.5)),
        leaves=(Leaf(name="b"),),
        by_name={"x/y": Leaf(name="c")},
        by_port={80: "http", 443: "tls"},
        color=Color.GREEN,
        flag=True,
        small=-5,
        big=2**32 - 1,
        ratio=3.0,
        words=("a", ""),
        anything={"deep": [1, None]},
        from_="here",
    )


def test_null_is_absent() -> None:
    made, findings = walked(
        {"leaf": None, "leaves": None, "color": None, "small": None, "words": None}
    )
    assert (made, findings) == (Tree(), [])


def test_all_errors_are_reported_at_once() -> None:
    made, findings = walked(
        {
            "leaf": {"name": "a", "maxAge": "soon", "size": 1},
            "leaves": [{"name": "ok"}, {}, "x"],
            "byName": {"k": {"name": None}},
            "color": "BLUE",
            "small": 2**31,
            "colour": "RED",
        }
    )
    assert made is BAD
    assert sorted(findings) == [
        ('spec.byName["k"].name', "required"),
        ("spec.color", "invalid-value"),
        ("spec.colour", "unknown-field"),
        ("spec.leaf.maxAge", "invalid-value"),
        ("spec.leaf.size", "unknown-field"),
        ("spec.leaves[1].name", "required"),
        ("spec.leaves[2]", "wrong-type"),
        ("spec.small", "out-of-range"),
    ]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("leaf", [], "wrong-type"),
        ("leaf", "x", "wrong-type"),
        ("leaves", {}, "wrong-type"),
        ("leaves", "x", "wrong-type"),
        ("byName", [], "wrong-type"),
        ("color", 1, "invalid-value"),
        ("color", "red", "invalid-value"),
        ("color", ["RED"], "invalid-value"),
        ("flag", 1, "wrong-type"),
        ("flag", "true", "wrong-type"),
        ("small", True, "wrong-type"),
        ("small", 1.0, "wrong-type"),
        ("small", "1", "wrong-type"),
        ("small", -(2**31) - 1, "out-of-range"),
        ("big", -1, "out-of-range"),
        ("big", 2**32, "out-of-range"),
        ("ratio", math.nan, "wrong-type"),
        ("ratio", math.inf, "wrong-type"),
        ("ratio", "1", "wrong-type"),
        ("ratio", False, "wrong-type"),
        ("from", 5, "wrong-type"),
        ("from", "a\0b", "invalid-value"),
    ],
)
def test_wrong_values(field: str, value: Any, code: str) -> None:
    made, findings = walked({field: value})
    assert made is BAD
    assert findings == [(f"spec.{field}", code)]


@pytest.mark.parametrize("raw", [None, [], "x", 5, True])
def test_a_spec_is_a_mapping(raw: Any) -> None:
    assert walked(raw) == (BAD, [("spec", "wrong-type")])


@pytest.mark.parametrize("value", [5, 1.5, None, True, [], {}, "5", "1.5 s", "1d"])
def test_durations(value: Any) -> None:
    made, findings = walked({"leaf": {"name": "a", "maxAge": value}})
    if value is None:
        assert made == Tree(leaf=Leaf(name="a"))
    else:
        assert made is BAD
        assert [path for path, _ in findings] == ["spec.leaf.maxAge"]


def test_keys_of_maps() -> None:
    _, findings = walked({"byName": {5: {"name": "a"}}, "byPort": {"http": "x", True: "y"}})
    assert findings == [
        ('spec.byName["5"]', "wrong-type"),
        ('spec.byPort["http"]', "wrong-type"),
        ('spec.byPort["True"]', "wrong-type"),
    ]


@pytest.mark.parametrize(
    ("raw", "near"),
    [({"colr": "RED"}, "color"), ({"leafs": []}, "leaf"), ({"max_small": 1, "smal": 1}, "small")],
)
def test_a_near_name_is_offered(raw: dict[str, Any], near: str) -> None:
    report = Report()
    walk_struct(Tree, raw, report)
    assert near in report.findings[-1].fix


def test_a_near_value_is_offered_and_text_that_lost_its_quotes() -> None:
    report = Report()
    walk_struct(Tree, {"color": "GREN", "from": 5}, report)
    assert [finding.fix for finding in report.findings] == [
        "did you mean GREEN?",
        'write it as "5"',
    ]


def test_a_far_name_lists_what_is_known() -> None:
    report = Report()
    walk_struct(Leaf, {"name": "a", "zzz": 1}, report)
    assert report.findings[0].fix == "known here: maxAge, name"


def test_depth_elements_and_texts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    raw: dict[str, Any] = {}
    for _ in range(walking.DEEPEST + 5):
        raw = {"link": raw}
    made, findings = walked(raw, Chain)
    assert made is BAD
    assert [code for _, code in findings] == ["too-deep"]
    monkeypatch.setattr(walking, "MOST_ELEMENTS", 3)
    monkeypatch.setattr(walking, "LONGEST_TEXT", 3)
    assert walked({"words": ["a"] * 4}) == (BAD, [("spec.words", "too-large")])
    assert walked({"from": "abcd"}) == (BAD, [("spec.from", "too-large")])
    assert walked({"from": "abc", "words": ["a"] * 3})[1] == []


TEXT = st.text("abc/é -", max_size=8)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(TEXT, st.sampled_from(sorted(walking.fields_of(Tree)))), inner, max_size=4
        ),
    ),
    max_leaves=12,
)
LEAVES = st.fixed_dictionaries(
    {"name": TEXT},
    optional={"maxAge": st.integers(0, 10**6).map(lambda count: f"{count}ms")},
)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "leaf": LEAVES,
        "leaves": st.lists(LEAVES, max_size=3),
        "byName": st.dictionaries(TEXT, LEAVES, max_size=3),
        "byPort": st.dictionaries(st.integers(0, 65535).map(str), TEXT, max_size=3),
        "color": st.sampled_from(["RED", "GREEN"]),
        "flag": st.booleans(),
        "small": st.integers(-(2**31), 2**31 - 1),
        "big": st.integers(0, 2**32 - 1),
        "ratio": st.floats(allow_nan=False, allow_infinity=False),
        "words": st.lists(TEXT, max_size=3),
        "anything": JSON,
        "from": TEXT,
    },
)


@given(JSON)
@settings(deadline=None)
def test_no_json_raises_and_bad_has_a_finding(raw: Any) -> None:
    made, findings = walked(raw)
    assert (made is BAD) == bool(findings)
    assert all(path.startswith("spec") for path, _ in findings)


@given(TREES)
@settings(deadline=None)
def test_good_values_are_read_as_msgspec_reads_them(raw: dict[str, Any]) -> None:
    made, findings = walked(raw)
    assert findings == []

    def duration(_: type, value: Any) -> Duration:
        return parse_duration(value)

    assert made == msgspec.convert(raw, Tree, dec_hook=duration, strict=False)
