"""YAML text to documents: lines, duplicate keys, lists, and text that is no object."""

from __future__ import annotations

import json
import re
from textwrap import dedent
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from windward.config import document
from windward.config.document import Document, parse_documents

KEYS = st.from_regex(r"[a-z][a-zA-Z]{0,6}", fullmatch=True).filter(
    lambda key: key.lower() not in {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.text("abc:#-\"' \n/é日", max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=20,
)
OBJECTS = st.dictionaries(KEYS.filter(lambda key: key not in {"kind", "items"}), VALUES, min_size=1, max_size=4)  # fmt: skip


def one(text: str) -> Document:
    (made,) = parse_documents(text, "mesh.yaml")
    return made


def fault(text: str) -> tuple[str, int]:
    """The code of the only finding, and the line of its document."""
    made = one(text)
    assert made.raw is None
    (finding,) = made.findings
    return finding.code, made.line


def test_every_field_knows_its_line() -> None:
    made = one(
        dedent("""\
        # a comment
        kind: VirtualService
        metadata:
          name: a
        spec:
          hosts: [one,
                  two]
          http:
          - route:
            - destination:
                host: b
              weight: 5
        """)
    )
    assert made.file == "mesh.yaml"
    assert made.line == 2
    assert made.findings == ()
    assert made.lines["kind"] == 2
    assert made.lines["metadata.name"] == 4
    assert made.lines["spec.hosts"] == 6
    assert made.lines["spec.hosts[1]"] == 7
    assert made.lines["spec.http[0]"] == 9
    assert made.lines["spec.http[0].route[0].destination.host"] == 11
    assert made.lines["spec.http[0].route[0].weight"] == 12


def test_several_documents_with_lines_of_the_file() -> None:
    made = parse_documents("---\nkind: A\n---\n# nothing\n---\n\nkind: B\n...\n", "f")
    assert [(item.raw, item.line) for item in made] == [({"kind": "A"}, 2), ({"kind": "B"}, 7)]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "---\n", "# only a comment\n", "---\n---\n", "null", "~"]
)
def test_nothing_is_no_document(text: str) -> None:
    assert parse_documents(text, "f") == []


def test_a_byte_order_mark_is_skipped() -> None:
    assert one("\ufeffkind: A\n").raw == {"kind": "A"}


def test_json_is_yaml() -> None:
    raw = {"kind": "A", "spec": {"list": [1, 2.5, None, True, "ü", {"x": "\n"}]}}
    assert one(json.dumps(raw)).raw == raw


def test_a_list_is_unpacked_and_its_items_keep_their_lines() -> None:
    made = parse_documents(
        "apiVersion: v1\nkind: List\nitems:\n- kind: A\n  spec:\n    a: 1\n- kind: B\n", "f"
    )
    assert [(item.raw, item.line) for item in made] == [
        ({"kind": "A", "spec": {"a": 1}}, 4),
        ({"kind": "B"}, 7),
    ]
    assert made[0].lines["spec.a"] == 6


def test_an_item_that_is_no_object_spares_its_neighbours() -> None:
    good, bad = parse_documents("kind: List\nitems:\n- kind: A\n- 5\n", "f")
    assert good.raw == {"kind": "A"}
    assert (bad.raw, bad.line, bad.findings[0].code) == (None, 4, "invalid-yaml")


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", 3),
        ("spec:\n  hosts: []\n  hosts: []\n", "spec.hosts", 3),
        ("spec:\n- x: 1\n  x: 1\n", "spec[0].x", 3),
        ('{"a": {"b": 1,\n "b": 1}}', "a.b", 2),
        ("kind: List\nkind: List\nitems: []\n", "kind", 2),
    ],
)
def test_a_key_that_stands_twice_is_an_error(text: str, path: str, line: int) -> None:
    made = one(text)
    assert made.raw is None
    (finding,) = made.findings
    assert (finding.path, finding.code) == (path, "duplicate")
    assert f"line {line}" in finding.message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a\n- b\n", 1),
        ("\njust text\n", 2),
        ("5", 1),
        ("a: [1\nb: 2\n", 2),
        ("a:\n\tb: 1\n", 2),
        ("a: 'open\n", 2),
        ("a: b: c\n", 1),
        ("a: *nowhere\n", 1),
        ("a: \0\n", 1),
        ("%YAML 9.9\n---\na: 1\n", 1),
        ("[" * 5000, 1),
    ],
)
def test_what_is_no_object_is_a_finding_with_a_line(text: str, line: int) -> None:
    code, where = fault(text)
    assert code == "invalid-yaml"
    assert abs(where - line) <= 1


@pytest.mark.parametrize(
    "tagged",
    [
        "!!python/object/apply:os.system [x]",
        "!!binary aGk=",
        "!mine x",
        "!!set {a}",
        "!!omap [a: 1]",
    ],
)
def test_tags_beyond_json_are_refused(tagged: str) -> None:
    assert fault(f"a: {tagged}\n") == ("invalid-yaml", 1)


def test_a_good_document_before_a_broken_one_is_still_read() -> None:
    good, bad = parse_documents("kind: A\n---\nb: [\n", "f")
    assert good.raw == {"kind": "A"}
    assert bad.raw is None


def test_aliases_are_values() -> None:
    assert one("a: &x {b: [1]}\nc: *x\n").raw == {"a": {"b": [1]}, "c": {"b": [1]}}


def test_aliases_may_not_blow_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MOST_NODES", 5_000)
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{row}: &a{row} [{', '.join([f'*a{row - 1}'] * 10)}]" for row in range(1, 12)]
    assert fault("\n".join(rows)) == ("too-large", 1)
    assert fault("a: &x [*x, *x, *x]\n") == ("too-large", 1)


def test_depth_is_bounded() -> None:
    assert one("a: " + "[" * 50 + "]" * 50).raw is not None
    assert fault("a: " + "[" * 80 + "]" * 80) == ("too-large", 1)
    assert fault("a: " + "[" * 50_000 + "]" * 50_000)[0] == "invalid-yaml"


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "LARGEST_BYTES", 100)
    assert one("a: " + "x" * 90).raw is not None
    assert fault("a: " + "x" * 100) == ("invalid-yaml", 1)


@pytest.mark.parametrize("text", ["2020-01-01", "2020-01-01T10:00:00Z", "2020-99-99"])
def test_dates_are_text(text: str) -> None:
    assert one(f"a: {text}\n").raw == {"a": text}


@given(OBJECTS)
@settings(deadline=None)
def test_what_yaml_writes_is_read_back(raw: dict[str, Any]) -> None:
    assert one(yaml.safe_dump(raw, allow_unicode=True)).raw == raw
    assert one(json.dumps(raw)).raw == raw


@given(OBJECTS)
@settings(deadline=None)
def test_every_value_has_a_line_of_the_text(raw: dict[str, Any]) -> None:
    text = yaml.safe_dump(raw, allow_unicode=True)
    made = one(text)

    def visit(value: Any, path: str) -> None:
        assert 1 <= made.lines[path] <= text.count("\n") + 1
        if isinstance(value, dict):
            for key, inner in value.items():
                below = f"{path}.{key}" if path else key
                visit(inner, below)
                assert re.search(rf'\b{key}"?:', text.splitlines()[made.lines[below] - 1])
        if isinstance(value, list):
            for index, inner in enumerate(value):
                visit(inner, f"{path}[{index}]")

    visit(raw, "")


@given(st.text("ab:-[]{},&*?|>'\"# \n\t%~.0", max_size=60))
@settings(deadline=None)
def test_no_text_raises_and_each_document_is_an_object_or_says_why_not(text: str) -> None:
    for made in parse_documents(text, "f"):
        assert (made.raw is None) == bool(made.findings)
        assert made.line >= 1


@pytest.mark.parametrize(
    "text",
    ["a: !!seq 1\n", "a: !!map [1]\n", "a: !!str [1]\n", "? [1, 2]\n: 3\n", "!!binary a: 1\n"],
)
def test_a_value_that_is_not_what_its_tag_says_is_a_finding(text: str) -> None:
    (made,) = parse_documents(text, "f")
    assert made.raw is None
    assert made.findings


def test_an_ipv6_address_that_ends_in_colons_may_stand_in_a_flow_list():
    text = "a: 1\nb: [1.2.3.4, fd00::, ::]\nc: 'x, ::'\nd: {e: [2001:db8::]}\n"
    (document,) = parse_documents(text, "f.yaml")
    assert document.raw == {
        "a": 1,
        "b": ["1.2.3.4", "fd00::", "::"],
        "c": "x, ::",
        "d": {"e": ["2001:db8::"]},
    }
    assert document.lines["d.e[0]"] == 4
    (broken,) = parse_documents("a: [xy::]\n", "f.yaml")
    assert broken.raw is None
