"""Consul's answers as service entries, and what its indices mean."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pilot.registry.consul import (
    BlockingQuery,
    host_of,
    read_catalog,
    read_instances,
    service_entry,
)
from tests.fakes.consul_server import instance


def made(
    name: str, *instances: dict[str, Any], datacenter: str = ""
) -> tuple[Any, tuple[str, ...]]:
    return service_entry(name, read_instances(msgspec.json.encode(instances)), datacenter)


def test_a_service_and_its_instances():
    item, problems = made(
        "web",
        instance("10.0.0.2", 8081, Weights={"Passing": 7}, Tags=["version=v1", "tier|front", "plain"]),
        instance("10.0.0.1", 8080, Meta={"protocol": "http", "team": "shop", "bad key": "x"}),
    )  # fmt: skip
    assert problems == ()
    assert str(item.key) == "ServiceEntry/consul/consul:web"
    assert item.spec.hosts == ("web.service.consul",)
    assert [(port.number, port.name, port.protocol) for port in item.spec.ports] == [(8080, "http", "HTTP")]  # fmt: skip
    one, two = item.spec.endpoints
    assert (one.address, one.ports, one.labels, one.weight) == ("10.0.0.1", {"http": 8080}, {"team": "shop"}, 1)  # fmt: skip
    assert (two.ports, two.labels, two.weight) == ({"http": 8081}, {"version": "v1", "tier": "front"}, 7)  # fmt: skip


def test_the_nodes_address_stands_in():
    item, _ = made("web", instance(""))
    assert item.spec.endpoints[0].address == "10.9.9.9"


def test_a_given_port_is_the_services():
    item, _ = made("web", instance(port=31000, Meta={"port": "80"}), instance("10.0.0.2", 31001))
    assert item.spec.ports[0].number == 80


def test_a_service_without_instances_stays_a_service():
    item, problems = made("web")
    assert (item.spec.endpoints, problems) == ((), ())


def test_a_datacenter_is_part_of_the_host():
    assert host_of("web", "") == "web.service.consul"
    item, _ = made("web", instance(), datacenter="dc2")
    assert item.spec.hosts == ("web.service.dc2.consul",)
    assert item.key.name == "consul:web.dc2"


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (instance("web.example.com"), "not an IP address"),
        (instance(port=0), "port"),
        (instance(port=70000), "port"),
        (instance(Meta={"protocol": "smtp"}), "SMTP"),
    ],
)
def test_what_cannot_be_used_is_named_and_hurts_no_other(bad, word):
    item, problems = made("web", bad, instance("10.0.0.2"))
    assert "10.0.0.2" in {endpoint.address for endpoint in item.spec.endpoints}
    assert word in problems[0]


@pytest.mark.parametrize("name", ["Web", "a_b", "a.b", "", "x" * 64])
def test_a_name_that_is_no_label_is_left_out(name):
    item, problems = made(name, instance())
    assert item is None
    assert "not a DNS label" in problems[0]


def test_a_port_that_cannot_be_is_refused_by_field():
    item, problems = made("web", instance(Meta={"port": "99999"}))
    assert item is None
    assert "spec.ports[0].number" in problems[0]


def test_only_what_passes_counts():
    body = msgspec.json.encode(
        [instance(), instance(status="critical"), instance(status="warning")]
    )
    assert len(read_instances(body)) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b"[{}]", b'[{"Node": 1}]', b"null", b'{"a": "b"}'])
def test_answers_of_another_form_are_refused(body):
    with pytest.raises(msgspec.DecodeError):
        read_instances(body)


def test_the_catalogs_names():
    assert read_catalog(b'{"web": ["a"], "consul": []}') == {"web", "consul"}
    with pytest.raises(msgspec.DecodeError):
        read_catalog(b"[]")


def test_an_index_is_carried_on_and_waits():
    query = BlockingQuery("/", 15)
    assert query.parameters(60) == {}
    query.answered(7, 0.0)
    assert query.parameters(60) == {"index": "7", "wait": "60s"}
    assert not query.doubts(3, 0.0)


def test_an_index_that_goes_back_begins_anew_and_is_doubted_for_a_while():
    query = BlockingQuery("/", 15)
    query.answered(70, 0.0)
    query.answered(7, 100.0)
    assert query.parameters(60) == {}
    query.answered(8, 100.1)
    assert query.doubts(1, 114.9)
    assert query.parameters(60) == {}, "what is doubted is asked for again"
    assert not query.doubts(0, 114.9)
    assert not query.doubts(1, 115.1)


def test_a_failure_begins_anew_and_is_doubted_for_a_while():
    query = BlockingQuery("/", 15)
    query.answered(70, 0.0)
    query.failed(100.0)
    query.failed(101.0)
    assert (query.failures, query.parameters(60)) == (2, {})
    assert query.doubts(1, 115.9)
    query.answered(7, 116.1)
    assert query.failures == 0
    assert not query.doubts(1, 116.1)


INSTANCES = st.lists(
    st.builds(
        instance,
        st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1", "", "x"]),
        st.integers(-1, 70000),
        status=st.sampled_from(["passing", "critical"]),
        Meta=st.none() | st.dictionaries(st.sampled_from(["port", "protocol", "v"]), st.text(max_size=8)),
        Tags=st.none() | st.lists(st.text(max_size=8), max_size=3),
        Weights=st.none() | st.fixed_dictionaries({"Passing": st.integers(-1, 9)}),
    ),
    max_size=5,
)  # fmt: skip


@given(INSTANCES, st.randoms(use_true_random=False))
def test_whatever_consul_says_it_is_a_valid_service_or_a_named_problem(instances, chance):
    item, problems = made("web", *instances)
    assert item is not None or problems
    if item is not None and not any("port" in (one["Service"]["Meta"] or {}) for one in instances):
        same = [one for one in instances if not one["Service"]["Meta"]]
        chance.shuffle(same)
        assert made("web", *same)[0].spec.hosts == item.spec.hosts
