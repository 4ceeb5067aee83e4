"""Finding one of the connected proxies by what people type."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from services.pilot.model.proxy import Proxy
from services.pilot.xds.connected import Connected, ConnectedProxies
from tests.unit.xds.meshes import StillView, a_set, deltas
from windward.xds.resource import CLUSTER, Resource
from windward.xds.stream import DeltaRequest, DeltaStream

CLUSTER_A = Resource(CLUSTER, "a", b"body")


def a_connected(name: str, namespace: str = "shop", address: str = "10.0.0.1") -> Connected:
    node_id = f"sidecar~{address}~{name}.{namespace}~{namespace}.svc.cluster.local"
    proxy, since = Proxy.from_node(node_id, {}, None), datetime(2026, 1, 1, tzinfo=UTC)
    return Connected(proxy, DeltaStream(a_set(1)), since, StillView(a_set(1)))


def test_what_was_accepted_holds_at_newer_revisions_that_change_nothing_for_the_proxy():
    view = StillView(a_set(1, CLUSTER_A))
    stream = DeltaStream(view.current)
    since = datetime(2026, 1, 1, tzinfo=UTC)
    connected = Connected(a_connected("reviews").proxy, stream, since, view)
    stream.request(DeltaRequest(CLUSTER))
    state = stream.types[CLUSTER]
    (sent,) = deltas(stream.take())
    view.current = replace(view.current, revision=17)
    assert connected.accepted(state) == 0, "the answer to what was sent is still missing"
    stream.request(DeltaRequest(CLUSTER, nonce=sent.nonce))
    stream.take()
    assert connected.accepted(state) == 17
    view.current = replace(view.current, version=2, revision=18)
    assert connected.accepted(state) == 10, "the stream has not looked at the newer set yet"


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
