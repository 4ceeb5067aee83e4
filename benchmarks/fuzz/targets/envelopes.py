"""The agent's envelope reader against protobuf: what both read is the same, and what only one reads is refused.

Asserted: only WireError leaves; where protobuf takes a message, the reader takes it and agrees in every field
(what has fields that protobuf does not know may be refused); what is written
again reads the same; a response under another nonce differs in nothing else.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Sized
from random import Random
from types import ModuleType
from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from benchmarks.fuzz.target import Single
from benchmarks.fuzz.wire import mutate_message
from services.agent.xds_proxy import wire
from services.agent.xds_proxy.wire import WireError
from windward.xds.resource import CLUSTER, ENDPOINT

Given = tuple[str, bytes]
"""(kind of message, bytes)."""
WORDS: Final = (
    CLUSTER.encode(),
    ENDPOINT.encode(),
    b"*",
    b"name",
    b"Clu-1-1",
    b"",
    b"\x0a\x00",
    b"\x12\x02\x0a\x00",
    b"\xff\xfe",
)
MESSAGES: Final[dict[str, Any]] = {
    "request": discovery_pb2.DeltaDiscoveryRequest,
    "response": discovery_pb2.DeltaDiscoveryResponse,
    "sotw": discovery_pb2.DiscoveryRequest,
}


class Envelopes(Single):
    modules: Sequence[ModuleType] = (wire,)

    def seeds(self) -> Sequence[Given]:
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=CLUSTER,
            resource_names_subscribe=["*", "a"],
            resource_names_unsubscribe=["b"],
            initial_resource_versions={"c": "1", "d": "2"},
            response_nonce="Clu-1-1",
        )
        request.node.id = "sidecar~10.0.0.1~web.shop~shop"
        request.error_detail.message = "no"
        response = discovery_pb2.DeltaDiscoveryResponse(
            system_version_info="7", type_url=CLUSTER, nonce="n", removed_resources=["x", "y"]
        )
        for name in ("a", "b"):
            item = response.resources.add(name=name, version="1")
            item.resource.type_url, item.resource.value = CLUSTER, b"body of " + name.encode()
        sotw = discovery_pb2.DiscoveryRequest(
            version_info="7", type_url=CLUSTER, resource_names=["a", "b"], response_nonce="n"
        )
        sotw.error_detail.message = "no"
        return [
            ("request", request.SerializeToString()),
            ("response", response.SerializeToString()),
            ("sotw", sotw.SerializeToString()),
        ]

    def mutate(self, random: Random, chosen: Given, other: Given) -> Given:
        return chosen[0], mutate_message(random, chosen[1], other[1], WORDS)

    def execute(self, given: Given) -> Hashable:
        kind, raw = given
        try:
            theirs = MESSAGES[kind].FromString(raw)
        except DecodeError:
            theirs = None
        try:
            return kind, _read(kind, raw, theirs)
        except WireError as error:
            refused = str(error)
        assert theirs is None or _has_unknown(theirs), f"protobuf takes it: {refused}"
        return kind, refused


def _read(kind: str, raw: bytes, theirs: Any) -> Hashable:
    match kind:
        case "request":
            return _request(raw, theirs)
        case "response":
            return _response(raw, theirs)
        case _:
            return _sotw(raw, theirs)


def _request(raw: bytes, theirs: Any) -> Hashable:
    got = wire.read_request(raw)
    assert wire.read_request(wire.write_request(got)) == got
    if got.error is not None:
        wire.message_of(got.error)
    if theirs is not None:
        assert got.type_url == theirs.type_url
        assert got.nonce == theirs.response_nonce
        assert got.subscribe == tuple(theirs.resource_names_subscribe)
        assert got.unsubscribe == tuple(theirs.resource_names_unsubscribe)
        # Protobuf's own reader passes over map entries that hold fields it does not know.
        same = got.initial_versions == dict(theirs.initial_resource_versions)
        assert same or _has_unknown(theirs)
        assert (got.error is not None) == theirs.HasField("error_detail")
        assert (got.node is not None) == theirs.HasField("node")
    return (
        *map(_few, (got.subscribe, got.unsubscribe, got.initial_versions)),
        got.error is None,
        theirs is None,
    )


def _response(raw: bytes, theirs: Any) -> Hashable:
    got = wire.read_response(raw)
    renamed = wire.read_response(wire.with_nonce(raw, "another"))
    assert renamed.nonce == "another"
    assert (renamed.items, renamed.removed, renamed.type_url) == (
        got.items,
        got.removed,
        got.type_url,
    )
    entries = [item.entry for item in got.items]
    again = wire.read_response(
        wire.write_response(got.type_url, entries, got.removed, got.version, got.nonce)
    )
    assert again == got
    for item in got.items:
        try:
            body = wire.body_of(item.entry)
        except WireError:
            assert theirs is None or _has_unknown(theirs)
            continue
        if theirs is not None:
            assert body == discovery_pb2.Resource.FromString(item.entry).resource.value
    if theirs is not None:
        assert [(item.name, item.version) for item in got.items] == [
            (item.name, item.version) for item in theirs.resources
        ]
        assert got.removed == tuple(theirs.removed_resources)
        assert (got.type_url, got.nonce) == (theirs.type_url, theirs.nonce)
        assert got.version == theirs.system_version_info
    return _few(got.items), _few(got.removed), theirs is None


def _sotw(raw: bytes, theirs: Any) -> Hashable:
    got = wire.read_sotw_request(raw)
    if theirs is not None:
        assert (got.type_url, got.nonce) == (theirs.type_url, theirs.response_nonce)
        assert got.names == tuple(theirs.resource_names)
        assert got.version == theirs.version_info
        assert (got.error is not None) == theirs.HasField("error_detail")
    return _few(got.names), got.error is None, theirs is None


def _few(items: Sized) -> int:
    return min(len(items), 4)


def _has_unknown(message: Any) -> bool:
    """Whether there are fields, at any depth, that protobuf does not know: of another number, or of another type."""
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return bool(known.ByteSize() != message.ByteSize())
