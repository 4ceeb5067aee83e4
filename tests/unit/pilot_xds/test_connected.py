"""Finding one of the connected proxies by what people type."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.pilot.model.proxy import Proxy
from services.pilot.xds.connected import Connected, ConnectedProxies
from tests.unit.xds.meshes import a_set
from windward.xds.stream import DeltaStream


def a_connected(name: str, namespace: str = "shop", address: str = "10.0.0.1") -> Connected:
    node_id = f"sidecar~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"
    return Connected(
        Proxy.from_node(node_id, {}, None), DeltaStream(a_set(1)), datetime(2026, 1, 1, tzinfo=UTC)
    )


def several() -> ConnectedProxies:
    connected = ConnectedProxies()
    connected.add(a_connected("reviews-v1"))
    connected.add(a_connected("reviews-v1", "test", "10.0.0.2"))
    connected.add(a_connected("ratings", address="10.0.0.3"))
    return connected


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("ratings", 1),
        ("reviews-v1", 2),
        ("reviews-v1.test", 1),
        ("10.0.0.2", 1),
        ("sidecar~10.0.0.3~ratings.shop~shop.svc.cluster.local", 1),
        ("reviews", 0),
        ("", 0),
    ],
)
def test_a_proxy_is_found_by_id_name_qualified_name_or_address(text, count):
    assert len(several().find(text)) == count


def test_the_same_proxy_may_be_connected_twice_for_a_moment():
    connected = ConnectedProxies()
    first, second = connected.add(a_connected("ratings")), connected.add(a_connected("ratings"))
    connected.remove(first)
    assert len(connected) == 1
    connected.remove(first)
    connected.remove(second)
    assert len(connected) == 0


def test_proxies_may_come_and_go_while_they_are_listed():
    connected = several()
    for _ in connected:
        connected.add(a_connected("new"))
    assert len(connected) == 6
