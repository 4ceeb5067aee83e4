from __future__ import annotations

import pytest

from services.pilot.envoy.match import route_match
from tests.unit.pilot.mesh import make

DEST = {"destination": {"host": "reviews"}}


def built(match):
    http = [{"match": [match], "route": [DEST]}]
    item = make("VirtualService", "reviews", {"hosts": ["reviews"], "http": http})
    return route_match(item.spec.http[0].match[0])


def test_paths():
    assert built({"uri": {"exact": "/a"}}).path == "/a"
    assert built({"uri": {"prefix": "/a"}}).prefix == "/a"
    assert built({"uri": {"regex": "/a.*"}}).safe_regex.regex == "/a.*"
    assert built({"headers": {"a": {"exact": "b"}}}).prefix == "/"


def test_case():
    assert not built({"uri": {"prefix": "/a"}}).HasField("case_sensitive")
    made = built({"uri": {"prefix": "/a"}, "ignoreUriCase": True})
    assert made.HasField("case_sensitive")
    assert not made.case_sensitive.value


@pytest.mark.parametrize(
    ("name", "header"), [("method", ":method"), ("authority", ":authority"), ("scheme", ":scheme")]
)
def test_pseudo_headers(name, header):
    (made,) = built({name: {"exact": "x"}}).headers
    assert (made.name, made.string_match.exact) == (header, "x")


def test_headers_in_name_order():
    made = built(
        {"headers": {"c": {"regex": "z.*"}, "a": {"exact": "x"}, "b": {"prefix": "y"}, "d": {}}}
    )
    assert [item.name for item in made.headers] == ["a", "b", "c", "d"]
    a, b, c, d = made.headers
    assert a.string_match.exact == "x"
    assert b.string_match.prefix == "y"
    assert c.string_match.safe_regex.regex == "z.*"
    assert d.present_match


def test_without_headers_holds_where_the_header_is_absent():
    valued, present = built({"withoutHeaders": {"a": {"exact": "x"}, "b": {}}}).headers
    assert valued.invert_match
    assert valued.treat_missing_header_as_empty
    assert present.invert_match
    assert present.present_match
    assert not present.treat_missing_header_as_empty


def test_query_parameters():
    made = built({"queryParams": {"b": {"regex": "1+"}, "a": {"exact": "x"}}}).query_parameters
    assert [(item.name, item.string_match.exact) for item in made] == [("a", "x"), ("b", "")]
    assert made[1].string_match.safe_regex.regex == "1+"
