"""Who Envoy says it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.envoy.node import (
    BadEnvironment,
    Node,
    build_node,
    environment_metadata,
    locality_of,
    parse_downward,
    parse_locality,
)
from services.agent.envoy.proxy_config import ProxyConfig


def a_node(environ: dict[str, str] | None = None, **over: Any) -> Node:
    base: dict[str, Any] = {
        "node_id": "sidecar~10.0.0.7~a.b~b.svc.cluster.local",
        "known": {},
        "environ": environ or {},
        "proxy": ProxyConfig(),
        "proxy_raw": {},
        "instance_ips": ("10.0.0.7",),
    }
    return build_node(**base | over)


def test_texts_objects_labels_and_annotations_come_from_the_environment():
    found = environment_metadata(
        {
            "ISTIO_META_CLUSTER_ID": "one",
            "ISTIO_METAJSON_ANY": '{"A": 1}',
            "WINDWARD_METAJSON_LABELS": '{"app": "reviews"}',
            "ISTIO_METAJSON_ANNOTATIONS": '{"x/y": "z"}',
            "ISTIO_META_": "no name",
            "PATH": "/bin",
        }
    )
    assert found == {
        "CLUSTER_ID": "one",
        "A": 1,
        "app": "reviews",
        "LABELS": {"app": "reviews"},
        "x/y": "z",
        "ANNOTATIONS": {"x/y": "z"},
    }


def test_windwards_form_wins_and_what_the_agent_knows_over_both():
    environ = {"ISTIO_META_A": "1", "WINDWARD_META_A": "2", "ISTIO_META_NAME": "x"}
    proxy = ProxyConfig(proxy_metadata={"ISTIO_META_A": "0", "ISTIO_META_B": "0", "OTHER": "0"})
    metadata = a_node(environ, proxy=proxy, known={"NAME": "mine"}).metadata
    assert (metadata["A"], metadata["B"], metadata["NAME"]) == ("2", "0", "mine")
    assert "OTHER" not in metadata


@pytest.mark.parametrize(
    "environ",
    [
        {"ISTIO_METAJSON_X": "{"},
        {"ISTIO_METAJSON_X": "[]"},
        {"ISTIO_METAJSON_LABELS": '{"app": 1}'},
        {"WINDWARD_METAJSON_ANNOTATIONS": '{"app": {}}'},
    ],
)
def test_what_cannot_be_read_is_named(environ):
    with pytest.raises(BadEnvironment, match=f"^{next(iter(environ))}: "):
        environment_metadata(environ)


def test_addresses_keep_their_order_once_each():
    node = a_node(instance_ips=("10.0.0.2", "10.0.0.1", "10.0.0.2"))
    assert node.metadata["INSTANCE_IPS"] == "10.0.0.2,10.0.0.1"
    assert not node.only_ipv6
    assert a_node(instance_ips=("fd00::1", "fd00::2")).only_ipv6
    assert not a_node(instance_ips=("fd00::1", "10.0.0.1")).only_ipv6


@pytest.mark.parametrize(
    ("labels", "locality", "found"),
    [
        ({}, "", {}),
        ({}, "r/z/s", {"region": "r", "zone": "z", "sub_zone": "s"}),
        ({}, "r", {"region": "r"}),
        ({"istio-locality": "r.z.s"}, "", {"region": "r", "zone": "z", "sub_zone": "s"}),
        ({"istio-locality": "r.z.s"}, "other", {"region": "other"}),
        ({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}, "",
         {"region": "r", "zone": "z"}),
        ({"topology.kubernetes.io/zone": "z"}, "", {"zone": "z"}),
    ],
)  # fmt: skip
def test_locality(labels, locality, found):
    node = a_node(labels=labels, locality=locality)
    assert dict(node.locality) == found
    if "istio-locality" in labels:
        assert node.metadata["LABELS"]["istio-locality"] == "/".join(found.values())


@given(st.lists(st.text("abc-.1", min_size=1), min_size=1, max_size=3))
def test_a_locality_is_read_as_it_is_written(parts):
    assert [*parse_locality("/".join(parts)).values()] == parts
    assert locality_of({"windward.io/locality": "/".join(parts)}).count("/") >= len(parts) - 1


def test_given_labels_and_annotations_go_over_the_environments():
    environ = {
        "ISTIO_METAJSON_LABELS": '{"app": "a", "x": "1"}',
        "ISTIO_METAJSON_ANNOTATIONS": '{"n": "a", "m": "1"}',
    }
    node = a_node(environ, labels={"app": "b"}, annotations={"n": "b"})
    assert node.metadata["LABELS"] == {"app": "b", "x": "1"}
    assert node.annotations == {"n": "b", "m": "1"}


@pytest.mark.parametrize(
    ("service_cluster", "labels", "known", "cluster"),
    [
        ("", {}, {}, "istio-proxy"),
        ("istio-proxy", {"app": "a"}, {"NAMESPACE": "n"}, "a.n"),
        ("", {"app.kubernetes.io/name": "k"}, {"NAMESPACE": "n"}, "k.n"),
        ("", {}, {"NAMESPACE": "n", "WORKLOAD_NAME": "w"}, "w.n"),
        ("", {}, {"NAMESPACE": "n"}, "istio-proxy.n"),
        ("own", {"app": "a"}, {"NAMESPACE": "n"}, "own"),
    ],
)
def test_the_cluster(service_cluster, labels, known, cluster):
    proxy = ProxyConfig(service_cluster=service_cluster)
    assert a_node(proxy=proxy, labels=labels, known=known).cluster == cluster


@given(st.dictionaries(st.text("ab/.", min_size=1), st.text()))
def test_the_downward_api_is_read_as_it_is_written(values):
    text = "".join(f"{name}={json.dumps(value)}\n" for name, value in values.items())
    assert parse_downward(text) == values


def test_a_downward_file_that_is_none_is_named():
    with pytest.raises(BadEnvironment, match=r"^app: not a quoted text"):
        parse_downward("app=reviews\n")
