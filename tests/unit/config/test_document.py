"""YAML: lines of fields, and texts that are no objects."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from windward.config.document import parse_documents

TWO = """\
apiVersion: v1
kind: A
spec:
  http:
  - route:
    - weight: 1
---
kind: B
"""


def test_each_field_knows_its_line():
    first, second = parse_documents(TWO, "f.yaml")
    assert first.raw == {
        "apiVersion": "v1",
        "kind": "A",
        "spec": {"http": [{"route": [{"weight": 1}]}]},
    }
    assert first.lines["spec.http[0].route[0].weight"] == 6
    assert (first.line, second.line) == (1, 8)
    assert second.raw == {"kind": "B"}


def test_a_key_that_stands_twice_is_an_error():
    (document,) = parse_documents("a: 1\nb: 2\na: 3\n", "f")
    assert document.raw is None
    assert [(item.path, item.code) for item in document.findings] == [("a", "duplicate")]


def test_aliases_cannot_blow_up():
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
    )
    (document,) = parse_documents(bomb, "f")
    assert document.raw is None
    assert document.findings[0].code == "too-large"


def test_tags_are_not_allowed():
    (document,) = parse_documents("a: !!python/object/apply:os.system [x]\n", "f")
    assert document.raw is None


def test_bad_yaml_names_its_line():
    (document,) = parse_documents("a: 1\nb: [1,\n", "f")
    assert document.findings[0].code == "invalid-yaml"
    assert document.line == 3


def test_a_list_is_unpacked():
    text = "kind: List\nitems:\n- kind: A\n- kind: B\n"
    assert [document.raw for document in parse_documents(text, "f")] == [
        {"kind": "A"},
        {"kind": "B"},
    ]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#\n \t,0", max_size=60))
def test_no_text_makes_it_raise(text: str):
    parse_documents(text, "f")
