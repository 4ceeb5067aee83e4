"""A resource's version depends on its bytes and on nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

from envoy.service.discovery.v3 import discovery_pb2

from windward.xds.resource import (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    NAME_TABLE,
    PUSH_ORDER,
    ROUTE,
    WILDCARD_TYPES,
    Changes,
    Origin,
    Resource,
    ResourceSet,
)

PRINT_VERSION = (
    "from windward.xds.resource import *; r = Resource(CLUSTER, 'a', b'body');"
    "print(r.version, r.any_entry.hex(), r.delta_entry.hex())"
)


def test_equal_bytes_have_equal_versions_whatever_they_were_built_from():
    one = Resource(CLUSTER, "a", b"body", (Origin("g", "K", "ns", "n"),))
    other = Resource(CLUSTER, "b", b"body")
    assert one.version == other.version
    assert one.version != Resource(CLUSTER, "a", b"other").version
    assert len(one.version) == 16


def test_bytes_do_not_depend_on_the_hash_seed():
    seen = {
        subprocess.run(
            [sys.executable, "-c", PRINT_VERSION],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(seen) == 1


def test_entries_are_field_two_of_their_responses():
    resource = Resource(ROUTE, "r", b"\x0a\x01r")
    assert discovery_pb2.DiscoveryResponse.FromString(resource.any_entry).resources[0].value == (
        resource.body
    )
    entry = discovery_pb2.DeltaDiscoveryResponse.FromString(resource.delta_entry).resources[0]
    assert (entry.name, entry.version) == ("r", resource.version)


def test_entries_of_large_resources_keep_their_length():
    resource = Resource(CLUSTER, "big", b"x" * 70_000)
    whole = discovery_pb2.DiscoveryResponse.FromString(resource.any_entry * 3)
    assert [len(item.value) for item in whole.resources] == [70_000] * 3


def test_what_is_referred_to_is_pushed_first():
    assert PUSH_ORDER.index(CLUSTER) < PUSH_ORDER.index(ENDPOINT)
    assert PUSH_ORDER.index(ENDPOINT) < PUSH_ORDER.index(LISTENER) < PUSH_ORDER.index(ROUTE)
    assert {CLUSTER, LISTENER, NAME_TABLE} == WILDCARD_TYPES


def test_the_first_layer_that_has_a_name_counts():
    own, shared, other = (Resource(CLUSTER, "a", b) for b in (b"own", b"shared", b"other"))
    b, route = Resource(CLUSTER, "b", b""), Resource(ROUTE, "r", b"")
    first = {CLUSTER: {"a": own}, ROUTE: {}}
    second = {CLUSTER: {"a": shared, "b": b}, ROUTE: {"r": route}}
    made = ResourceSet(1, 1, (first, second))
    assert made.get(CLUSTER, "a") is own
    assert made.get(CLUSTER, "b") is b
    assert made.get(CLUSTER, "c") is made.get(LISTENER, "a") is None
    assert made.names(CLUSTER) == {"a", "b"}
    assert made.names(ROUTE) == {"r"}
    assert made.names(LISTENER) == set()
    assert made.by_type == {CLUSTER: {"a": own, "b": b}, ROUTE: {"r": route}}
    assert ResourceSet.of(1, 1, {CLUSTER: {"a": other}}).get(CLUSTER, "a") is other


def test_changes_of_a_set_since_an_earlier_version():
    made = ResourceSet.of(
        9,
        1,
        {},
        (
            Changes(7, {CLUSTER: frozenset({"a"})}),
            Changes(4, {CLUSTER: frozenset({"b"}), ENDPOINT: frozenset({"c"})}),
        ),
    )
    assert made.changed_since(9) == {}
    assert made.changed_since(7) == {CLUSTER: frozenset({"a"})}
    assert made.changed_since(4) == {CLUSTER: frozenset({"a", "b"}), ENDPOINT: frozenset({"c"})}
    assert made.changed_since(5) is None
    assert made.changed_since(3) is None
