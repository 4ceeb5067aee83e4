"""Decoding: every error at its path, nothing ignored, nothing raised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windward.config.decode import decode_object
from windward.config.finding import Severity
from windward.config.registry import KINDS

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["hosts", "http", "match", "route", "port", "x", "host", "spec"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def virtual_service(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], **spec},
    }


def paths(raw: dict[str, Any]) -> dict[str, str]:
    made, findings = decode_object(raw)
    errors = {item.path: item.code for item in findings if item.severity is Severity.ERROR}
    assert (made is None) == bool(errors)
    return errors


def test_every_error_is_reported_at_once_with_its_path():
    raw = virtual_service(
        http=[
            {"route": [{"destination": {"host": "reviews"}, "weigth": 10}], "timeout": "5 parsecs"},
            {
                "route": [
                    {"destination": {"host": "reviews", "port": {"number": "http"}}, "weight": -1}
                ]
            },
        ]
    )
    assert paths(raw) == {
        "spec.http[0].route[0].weigth": "unknown-field",
        "spec.http[0].timeout": "invalid-value",
        "spec.http[1].route[0].destination.port.number": "wrong-type",
    }


def test_a_near_miss_is_suggested():
    _, findings = decode_object(virtual_service(http=[{"rout": []}]))
    assert findings[0].fix == "did you mean route?"


def test_rules_that_types_cannot_say():
    raw = virtual_service(
        http=[{"route": [{"destination": {"host": "a"}, "weight": 0}, {"destination": {}}]}]
    )
    assert paths(raw) == {
        "spec.http[0].route": "out-of-range",
        "spec.http[0].route[1].destination.host": "required",
    }


def test_a_field_that_no_builder_reads_is_refused():
    raw = virtual_service(
        http=[{"route": [{"destination": {"host": "a"}}], "mirror": {"host": "b"}}]
    )
    assert paths(raw) == {"spec.http[0].mirror": "not-supported"}


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_every_version_of_a_kind_is_one_schema(version: str):
    raw = virtual_service(http=[{"route": [{"destination": {"host": "a"}}]}])
    assert paths({**raw, "apiVersion": f"networking.istio.io/{version}"}) == {}


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"apiVersion": "networking.istio.io/v9"}, "apiVersion"),
        ({"kind": "VirtualServic"}, "kind"),
        ({"metadata": {"name": "Bad_Name"}}, "metadata.name"),
        ({"metadata": {"name": "a", "namespace": "Bad"}}, "metadata.namespace"),
        ({"metadata": {"name": "a", "lables": {}}}, "metadata.lables"),
        ({"metadata": None}, "metadata"),
        ({"specs": {}}, "specs"),
    ],
)
def test_what_is_wrong_around_the_spec(change: dict[str, Any], path: str):
    raw = {**virtual_service(http=[{"route": [{"destination": {"host": "a"}}]}]), **change}
    assert path in paths(raw)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(KINDS)), JSON, JSON)
def test_no_json_makes_it_raise(kind: tuple[str, str], spec: Any, metadata: Any):
    group, name = kind
    version = KINDS[kind].versions[0]
    decode_object(
        {"apiVersion": f"{group}/{version}", "kind": name, "metadata": metadata, "spec": spec}
    )


def test_a_null_is_an_absent_field():
    raw = virtual_service(
        gateways=None, http=[{"route": [{"destination": {"host": "a"}}], "timeout": None}]
    )
    assert paths(raw) == {}
