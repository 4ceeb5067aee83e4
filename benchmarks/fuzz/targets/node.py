"""A proxy's node message, as DiscoveryServer reads it: size, metadata, then who the proxy is, and what it is sent.

Asserted: only ProxyRejected (and the errors that the server expects of protobuf's JSON) leave; a proxy is of the namespace and
account that its certificate says; what is generated for it can be generated, whatever its labels and addresses are.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random
from types import ModuleType
from typing import Final

from envoy.config.core.v3 import base_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from benchmarks.fuzz.target import Single
from benchmarks.fuzz.wire import mutate_message
from services.pilot.envoy import own
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.options import Options
from services.pilot.envoy.own import own_resources, scope_of
from services.pilot.envoy.scope import ScopeResources
from services.pilot.model import proxy as module
from services.pilot.model.proxy import Proxy, ProxyRejected
from services.pilot.xds.server import LONGEST_NODE
from tests.unit.pilot.whole import whole_mesh
from windward.identity.spiffe_id import SpiffeId, workload_id

OPTIONS: Final = Options(trust_domain="cluster.local", allow_any=True, mixer_addresses=())
MESH: Final = whole_mesh()
CALLER: Final = workload_id("cluster.local", "shop", "reviews")
BUILT_EVERY: Final = 8
"""Of the proxies that are let in, one in so many is generated for: that costs as much as fifty requests."""
WORDS: Final = (
    b"sidecar~10.0.0.1~a.b~c", b"router~~a.b.c~", b"~", b".", b"", b"NAMESPACE", b"SERVICE_ACCOUNT", b"LABELS",
    b"INTERCEPTION_MODE", b"NONE", b"TPROXY", b"GENERATOR", b"grpc", b"INSTANCE_IPS", b"::1,10.0.0.1", b"fe80::1%eth0",
    b"APP_ADDRESS", b"reviews", b"shop", b"DNS_CAPTURE", b"DNS_AUTO_ALLOCATE", b"true", b"\xc3\xa9", b"\x00", b"x" * 300,
)  # fmt: skip


class Node(Single):
    modules: Sequence[ModuleType] = (module, own)

    def __init__(self) -> None:
        self._count = 0

    def seeds(self) -> Sequence[bytes]:
        made = []
        metadata = {
            "SERVICE_ACCOUNT": "reviews",
            "LABELS": {"app": "reviews", "version": "v1"},
            "INTERCEPTION_MODE": "REDIRECT",
            "INSTANCE_IPS": "127.7.0.2,::1",
            "DNS_CAPTURE": "true",
            "DNS_AUTO_ALLOCATE": "true",
            "APP_ADDRESS": "127.0.0.1",
            "deep": {"list": [1, None, True, {"a": []}]},
        }
        for name in ("sidecar~127.7.0.2~reviews-v1.shop~shop.svc", "router~10.0.0.1~gw.shop~x"):
            for more in ({}, {"GENERATOR": "grpc"}, {"INTERCEPTION_MODE": "NONE"}):
                node = base_pb2.Node(id=name, cluster="c")
                json_format.ParseDict({**metadata, **more}, node.metadata)
                made.append(node.SerializeToString())
        return made

    def mutate(self, random: Random, chosen: bytes, other: bytes) -> bytes:
        return mutate_message(random, chosen, other, WORDS)

    def execute(self, given: bytes) -> Hashable:
        try:
            node = base_pb2.Node.FromString(given)
        except DecodeError:
            return "garbage"
        if node.ByteSize() > LONGEST_NODE:
            return "too large"
        try:
            metadata = json_format.MessageToDict(node.metadata)
        except (ValueError, RecursionError):
            return "unreadable"
        identity = CALLER if len(given) % 2 else None
        try:
            proxy = Proxy.from_node(node.id, metadata, identity)
        except ProxyRejected as error:
            return str(error)[:12]
        _check(proxy, identity)
        self._count += 1
        if self._count % BUILT_EVERY == 0:
            _build(proxy)
        return (proxy.type, proxy.interception, proxy.proxyless, proxy.vips, proxy.ipv6)


def _check(proxy: Proxy, identity: SpiffeId | None) -> None:
    assert hash(proxy) == hash(proxy)
    assert proxy.name
    assert proxy.namespace
    if identity is not None:
        assert identity.workload == (proxy.namespace, proxy.service_account)


def _build(proxy: Proxy) -> None:
    """Its own resources against the whole mesh, and a scope's key."""
    ScopeResources(scope_of(MESH, proxy), OPTIONS, Memo())
    for item in own_resources(MESH, proxy, OPTIONS):
        assert item.version
        assert item.name.encode()
