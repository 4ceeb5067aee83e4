from __future__ import annotations

import pytest

from services.pilot.model.proxy import Interception, Proxy, ProxyRejected, ProxyType
from windward.identity.spiffe_id import SpiffeId

NODE = "sidecar~127.7.0.2~reviews-v1.shop~shop.svc.cluster.local"
METADATA = {
    "SERVICE_ACCOUNT": "reviews",
    "LABELS": {"version": "v1", "app": "reviews"},
    "INTERCEPTION_MODE": "NONE",
    "APP_ADDRESS": "127.0.0.5",
}
IDENTITY = SpiffeId.parse("spiffe://cluster.local/ns/shop/sa/reviews")


def test_a_node_as_the_agent_writes_it():
    proxy = Proxy.from_node(NODE, METADATA, IDENTITY)
    assert proxy == Proxy(
        id=NODE,
        type=ProxyType.SIDECAR,
        namespace="shop",
        name="reviews-v1",
        service_account="reviews",
        address="127.7.0.2",
        labels=(("app", "reviews"), ("version", "v1")),
        interception=Interception.NONE,
        app_address="127.0.0.5",
        identity=IDENTITY,
    )


def test_a_bare_node_is_intercepted_and_its_application_is_on_loopback():
    proxy = Proxy.from_node(NODE, {}, None)
    assert (proxy.interception, proxy.app_address) == (Interception.REDIRECT, "127.0.0.1")


def test_a_name_may_hold_dots():
    proxy = Proxy.from_node("router~10.0.0.1~a.b.shop~x", {}, None)
    assert (proxy.type, proxy.name, proxy.namespace) == (ProxyType.ROUTER, "a.b", "shop")


@pytest.mark.parametrize(
    "node",
    ["", "sidecar", "waypoint~1~a.b~c", "sidecar~1~nodot~c", "sidecar~1~.ns~c", "a~b~c~d~e"],
)
def test_nodes_that_say_nothing_usable(node):
    with pytest.raises(ProxyRejected):
        Proxy.from_node(node, {}, None)


@pytest.mark.parametrize(
    "identity",
    [
        "spiffe://cluster.local/ns/other/sa/reviews",
        "spiffe://cluster.local/ns/shop/sa/other",
        "spiffe://cluster.local/something/else",
    ],
)
def test_a_node_must_be_what_its_certificate_says(identity):
    with pytest.raises(ProxyRejected, match="certificate"):
        Proxy.from_node(NODE, METADATA, SpiffeId.parse(identity))


@pytest.mark.parametrize("metadata", [{"LABELS": ["a"]}, {"INTERCEPTION_MODE": "TPROXIED"}])
def test_metadata_of_the_wrong_kind(metadata):
    with pytest.raises(ProxyRejected):
        Proxy.from_node(NODE, metadata, None)


def test_a_refusal_quotes_little_of_what_was_sent():
    with pytest.raises(ProxyRejected) as refused:
        Proxy.from_node("x" * 1_000_000, {}, None)
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize(
    ("address", "listed", "ipv6"),
    [
        ("10.0.0.1", None, False),
        ("10.0.0.1", "10.0.0.1,10.0.0.2", False),
        ("10.0.0.1", "10.0.0.1, fd00::1", True),
        ("fd00::1", None, True),
        ("10.0.0.1", "no:address", False),
        ("10.0.0.1", ["fd00::1"], False),
    ],
)
def test_addresses_of_both_families_are_known(address, listed, ipv6):
    node = f"sidecar~{address}~a.shop~shop.svc.cluster.local"
    assert Proxy.from_node(node, {"INSTANCE_IPS": listed}, None).ipv6 is ipv6
