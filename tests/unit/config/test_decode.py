"""Whole objects: kind, version, metadata, spec, rules and what is not built, in one pass."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from windward.config.decode import decode_object, errors
from windward.config.document import parse_documents
from windward.config.finding import Finding, Severity
from windward.config.object import ObjectKey
from windward.config.registry import KINDS
from windward.config.types import Duration, parse_duration
from windward.config.virtual_service import VirtualService

ROUTE = {"destination": {"host": "reviews"}}


def virtual_service(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], "http": [{"route": [ROUTE]}]},
        **changes,
    }


def found(raw: dict[str, Any]) -> list[tuple[str, str]]:
    made, findings = decode_object(raw)
    assert (made is None) == bool(errors(findings))
    return [(finding.path, finding.code) for finding in findings]


def test_a_valid_object_has_its_key_spec_labels_and_text() -> None:
    raw = virtual_service(
        metadata={"name": "a.b-1", "labels": {"app.io/x": "Y_1"}, "annotations": {"any thing": "ü"}}
    )
    made, findings = decode_object(raw, default_namespace="shop")
    assert findings == ()
    assert made is not None
    assert made.key == ObjectKey("networking.istio.io", "VirtualService", "shop", "a.b-1")
    assert str(made.key) == "VirtualService/shop/a.b-1"
    assert isinstance(made.spec, VirtualService)
    assert made.spec.http[0].route[0].destination is not None
    assert (made.labels, made.annotations) == ({"app.io/x": "Y_1"}, {"any thing": "ü"})
    assert made.raw == raw


@pytest.mark.parametrize("key", sorted(KINDS))
def test_every_version_of_a_kind_is_taken_and_no_other(key: tuple[str, str]) -> None:
    kind = KINDS[key]
    for version in (*kind.versions, "v7"):
        raw = virtual_service(apiVersion=f"{kind.group}/{version}", kind=kind.kind, spec={})
        refused = ("apiVersion", "unknown-version") in found(raw)
        assert refused == (version == "v7")


def test_names_of_kinds_are_unique_and_plurals_are_lower_case() -> None:
    plurals = [kind.plural for kind in KINDS.values()]
    assert len(plurals) == len(set(plurals))
    assert all(plural.islower() for plural in plurals)


@pytest.mark.parametrize(
    ("changes", "path", "code", "fix"),
    [
        ({"kind": "VirtualServce"}, "kind", "unknown-kind", "did you mean VirtualService?"),
        ({"kind": "Zzz"}, "kind", "unknown-kind", "known kinds"),
        ({"kind": None}, "kind", "required", ""),
        ({"kind": ["Gateway"]}, "kind", "required", ""),
        ({"apiVersion": "v1"}, "kind", "unknown-kind", "known kinds"),
        ({"apiVersion": 1}, "apiVersion", "required", ""),
        ({"apiVersion": "example.com/v1"}, "kind", "unknown-kind", ""),
        ({"apiVersion": "networking.istio.io/v2"}, "apiVersion", "unknown-version", "/v1"),
        ({"specs": {}}, "specs", "unknown-field", "did you mean spec?"),
        ({"data": {}}, "data", "unknown-field", ""),
    ],
)
def test_the_head_of_an_object(changes: dict[str, Any], path: str, code: str, fix: str) -> None:
    made, findings = decode_object(virtual_service(**changes))
    assert made is None
    matching = [item for item in findings if (item.path, item.code) == (path, code)]
    assert len(matching) == 1
    assert fix in matching[0].fix


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (None, [("metadata", "required")]),
        ([], [("metadata", "required")]),
        ({}, [("metadata.name", "required")]),
        ({"name": ""}, [("metadata.name", "required")]),
        ({"name": 5}, [("metadata.name", "required")]),
        ({"name": "A"}, [("metadata.name", "invalid-value")]),
        ({"name": "a_b"}, [("metadata.name", "invalid-value")]),
        ({"name": "-a"}, [("metadata.name", "invalid-value")]),
        ({"name": "a..b"}, [("metadata.name", "invalid-value")]),
        ({"name": "a" * 254}, [("metadata.name", "invalid-value")]),
        ({"name": "a" * 253}, []),
        ({"name": "a", "namespace": "a.b"}, [("metadata.namespace", "invalid-value")]),
        ({"name": "a", "namespace": "a" * 64}, [("metadata.namespace", "invalid-value")]),
        ({"name": "a", "namespace": 1}, [("metadata.namespace", "invalid-value")]),
        ({"name": "a", "namespace": ""}, []),
        ({"name": "a", "lables": {}}, [("metadata.lables", "unknown-field")]),
        ({"name": "a", "labels": []}, [("metadata.labels", "wrong-type")]),
        ({"name": "a", "labels": {"x": 1}}, [('metadata.labels["x"]', "wrong-type")]),
        ({"name": "a", "labels": {"a b": ""}}, [('metadata.labels["a b"]', "invalid-value")]),
        ({"name": "a", "labels": {"x": "a b"}}, [('metadata.labels["x"]', "invalid-value")]),
        ({"name": "a", "labels": {"x": "y" * 64}}, [('metadata.labels["x"]', "invalid-value")]),
        ({"name": "a", "annotations": {"x": None}}, [('metadata.annotations["x"]', "wrong-type")]),
        ({"name": "a", "uid": "1", "resourceVersion": "5", "generation": 3, "creationTimestamp": None}, []),
    ],
)  # fmt: skip
def test_metadata(metadata: Any, expected: list[tuple[str, str]]) -> None:
    assert found(virtual_service(metadata=metadata)) == expected


def test_errors_of_head_metadata_and_spec_come_together() -> None:
    raw = virtual_service(
        extra=1, metadata={"name": "A"}, spec={"hosts": "reviews", "http": [{"rout": []}]}
    )
    assert sorted(found(raw)) == [
        ("extra", "unknown-field"),
        ("metadata.name", "invalid-value"),
        ("spec.hosts", "wrong-type"),
        ("spec.http[0].rout", "unknown-field"),
    ]


def test_what_is_not_built_is_refused_at_its_path_beside_other_errors() -> None:
    raw = virtual_service(
        spec={
            "hosts": ["a"],
            "http": [{"route": [ROUTE], "mirror": {"host": "b"}, "timeout": "-1s"}],
        }
    )
    made, findings = decode_object(raw)
    assert made is None
    assert {(item.path, item.message) for item in findings} >= {
        ("spec.http[0].mirror", "not supported yet")
    }
    assert "spec.http[0].timeout" in {item.path for item in findings}


def test_a_warning_does_not_refuse() -> None:
    made, findings = decode_object(
        virtual_service(spec={"hosts": ["a"], "http": [{"route": [ROUTE]}, {"route": [ROUTE]}]})
    )
    assert made is not None
    assert [(item.path, item.severity) for item in findings] == [("spec.http[1]", Severity.WARNING)]
    assert errors(findings) == ()


@pytest.mark.parametrize("spec", [[], "x", 5, True])
def test_a_spec_that_is_no_mapping(spec: Any) -> None:
    assert found(virtual_service(spec=spec)) == [("spec", "wrong-type")]


def test_status_is_taken_without_meaning() -> None:
    assert found(virtual_service(status={"conditions": [1]})) == []


# Laws over whole objects. Keys are plain so that a path can be read back without quoting rules.

TEXT = st.text("abcxyz.-/*:", max_size=8)
LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(width=32), TEXT,
    st.sampled_from(["1s", "0s", "-1s", "*", "reviews", "a.b", "10.0.0.1", "MUTUAL", "ROUND_ROBIN", "("]),
)  # fmt: skip
NAMES = sorted(
    {
        "hosts", "http", "route", "destination", "host", "subset", "port", "number", "weight", "match", "uri", "exact",
        "regex", "headers", "fault", "delay", "abort", "percentage", "value", "timeout", "retries", "attempts", "tls",
        "tcp", "gateways", "exportTo", "trafficPolicy", "subsets", "name", "labels", "connectionPool", "loadBalancer",
        "simple", "outlierDetection", "interval", "portLevelSettings", "redirect", "rewrite", "servers", "spec",
        "selector", "mode", "mtls", "ports", "endpoints", "address", "params", "actions", "handler", "resolution",
    }
)  # fmt: skip
JSON = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.just("zzz")), inner, max_size=4),
    ),
    max_leaves=15,
)
KIND = st.sampled_from(sorted(KINDS))
STEP = re.compile(r'\[(\d+)\]|\["([^"]*)"\]|([^.\[\]]+)')


def steps(path: str) -> list[str | int]:
    return [
        int(index) if index else (key or name)
        for index, key, name in (match.groups() for match in STEP.finditer(path))
    ]


def holds(raw: Any, path: list[str | int]) -> bool:
    """Whether a path leads to something in the input."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(raw, list) or step >= len(raw):
                return False
        elif not isinstance(raw, dict) or step not in raw:
            return False
        raw = raw[step]
    return True


def check_paths(raw: dict[str, Any], findings: tuple[Finding, ...]) -> None:
    """What a finding is about is in the input; what is missing has its parent there."""
    for finding in findings:
        path = steps(finding.path)
        if finding.code in {
            "unknown-field",
            "wrong-type",
            "not-supported",
            "duplicate",
            "too-large",
        }:
            assert holds(raw, path), finding
        else:
            assert holds(raw, path[:-1]), finding


@given(KIND, st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
@settings(deadline=None, max_examples=300)
def test_no_spec_raises_and_every_path_leads_into_it(
    key: tuple[str, str], spec: dict[str, Any]
) -> None:
    group, kind = key
    raw = virtual_service(apiVersion=f"{group}/{KINDS[key].versions[0]}", kind=kind, spec=spec)
    before = copy.deepcopy(raw)
    made, findings = decode_object(raw)
    assert (made is None) == bool(errors(findings))
    assert repr(raw) == repr(before)
    check_paths(raw, findings)


@given(st.dictionaries(st.sampled_from(["apiVersion", "kind", "metadata", "spec", "x"]), JSON))
@settings(deadline=None)
def test_no_mapping_raises(raw: dict[str, Any]) -> None:
    made, findings = decode_object(raw)
    assert made is None
    assert findings


LABEL = st.from_regex(r"[a-z]([-a-z0-9]{0,5}[a-z0-9])?", fullmatch=True)
HEADER = LABEL.map(lambda name: f"x-{name}")
HOST = st.lists(LABEL, min_size=1, max_size=3).map(".".join)
SECONDS = st.integers(1, 10**6).map(lambda count: f"{count}ms")
MATCH = st.one_of(
    st.fixed_dictionaries({"exact": LABEL}),
    st.fixed_dictionaries({"prefix": LABEL.map(lambda name: f"/{name}")}),
    st.fixed_dictionaries({"regex": st.just("v[0-9]+.*")}),
)
PERCENT = st.fixed_dictionaries({"value": st.integers(0, 100)})
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "name": LABEL, "uri": MATCH, "method": MATCH, "scheme": MATCH, "authority": MATCH,
        "headers": st.dictionaries(LABEL, MATCH, max_size=2),
        "withoutHeaders": st.dictionaries(LABEL, MATCH, max_size=2),
        "queryParams": st.dictionaries(LABEL, MATCH, max_size=2),
        "port": st.integers(1, 65535), "sourceLabels": st.dictionaries(LABEL, LABEL, max_size=2),
        "sourceNamespace": LABEL, "ignoreUriCase": st.booleans(),
    },
)  # fmt: skip
DESTINATION = st.fixed_dictionaries(
    {"host": HOST},
    optional={"subset": LABEL, "port": st.fixed_dictionaries({"number": st.integers(1, 65535)})},
)
DESTINATIONS = st.lists(
    st.fixed_dictionaries({"destination": DESTINATION, "weight": st.integers(1, 100)}),
    min_size=1,
    max_size=3,
)
HTTP_ROUTE = st.fixed_dictionaries(
    {"route": DESTINATIONS},
    optional={
        "name": LABEL,
        "match": st.lists(REQUEST, max_size=2),
        "timeout": SECONDS,
        "retries": st.fixed_dictionaries(
            {"attempts": st.integers(1, 5)},
            optional={"perTryTimeout": SECONDS, "retryOn": st.just("5xx,reset,503")},
        ),
        "fault": st.one_of(
            st.fixed_dictionaries(
                {"abort": st.fixed_dictionaries({"httpStatus": st.integers(200, 599), "percentage": PERCENT})}
            ),
            st.fixed_dictionaries(
                {"delay": st.fixed_dictionaries({"fixedDelay": SECONDS, "percentage": PERCENT})}
            ),
        ),
        "rewrite": st.fixed_dictionaries({"uri": st.just("/")}, optional={"authority": HOST}),
        "headers": st.fixed_dictionaries(
            {}, optional={"request": st.fixed_dictionaries({"set": st.dictionaries(HEADER, LABEL, max_size=2)})}
        ),
    },
)  # fmt: skip
VIRTUAL_SERVICES = st.fixed_dictionaries(
    {
        "hosts": st.lists(HOST, min_size=1, max_size=3, unique=True),
        "http": st.lists(HTTP_ROUTE, min_size=1, max_size=3),
    },
    optional={
        "tcp": st.lists(st.fixed_dictionaries({"route": DESTINATIONS}), max_size=2),
        "exportTo": st.sampled_from([["*"], ["."], ["a", "b"], []]),
    },
)
POLICY = st.fixed_dictionaries(
    {"loadBalancer": st.fixed_dictionaries({"simple": st.sampled_from(["RANDOM", "ROUND_ROBIN"])})},
    optional={
        "connectionPool": st.fixed_dictionaries(
            {"tcp": st.fixed_dictionaries({"maxConnections": st.integers(0, 99)}, optional={"connectTimeout": SECONDS})}
        ),
        "outlierDetection": st.fixed_dictionaries(
            {},
            optional={
                "consecutive5xxErrors": st.integers(0, 9),
                "interval": SECONDS,
                "maxEjectionPercent": st.integers(0, 100),
            },
        ),
        "tls": st.fixed_dictionaries({"mode": st.sampled_from(["DISABLE", "ISTIO_MUTUAL"])}),
    },
)  # fmt: skip


def name_of_subset(subset: Any) -> str:
    return str(subset["name"])


DESTINATION_RULES = st.fixed_dictionaries(
    {"host": HOST},
    optional={
        "trafficPolicy": POLICY,
        "subsets": st.lists(
            st.fixed_dictionaries(
                {"name": LABEL, "labels": st.dictionaries(LABEL, LABEL, max_size=2)},
                optional={"trafficPolicy": POLICY},
            ),
            max_size=3,
            unique_by=name_of_subset,
        ),
    },
)
VALID = st.one_of(
    st.tuples(st.just("VirtualService"), VIRTUAL_SERVICES),
    st.tuples(st.just("DestinationRule"), DESTINATION_RULES),
)


@given(VALID)
@settings(deadline=None)
def test_valid_specs_are_taken_and_read_the_same_from_json_yaml_and_msgspec(
    kind_and_spec: tuple[str, dict[str, Any]],
) -> None:
    kind, spec = kind_and_spec
    raw = virtual_service(kind=kind, spec=spec)
    made, findings = decode_object(raw)
    assert errors(findings) == ()
    assert made is not None

    (document,) = parse_documents(yaml.safe_dump(made.raw), "f")
    assert document.raw is not None
    for again in (document.raw, json.loads(json.dumps(made.raw))):
        assert decode_object(again)[0] == made

    def duration(_: type, value: Any) -> Duration:
        return parse_duration(value)

    if (
        kind == "VirtualService"
    ):  # msgspec makes no decoder for the 64-bit bounds of DestinationRule
        assert made.spec == msgspec.convert(spec, VirtualService, dec_hook=duration)


@given(VALID, st.data())
@settings(deadline=None, max_examples=200)
def test_one_spoilt_value_is_named_and_nothing_raises(
    kind_and_spec: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    kind, spec = kind_and_spec
    raw = virtual_service(kind=kind, spec=copy.deepcopy(spec))
    holder: Any = raw["spec"]
    while True:
        key: Any = data.draw(
            st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
        )
        if not isinstance(holder[key], (dict, list)) or not holder[key] or data.draw(st.booleans()):
            break
        holder = holder[key]
    holder[key] = data.draw(JSON)
    _, findings = decode_object(raw)
    check_paths(raw, findings)
