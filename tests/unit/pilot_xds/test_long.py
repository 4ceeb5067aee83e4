"""A long request read in steps is what protobuf reads at one stroke, or is refused where protobuf refuses it."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pilot.xds.long import FIELDS_A_STEP, Apart, taking_apart
from services.pilot.xds.requests import delta, sotw
from windward.rpc.errors import RefusedError
from windward.slices import at_once
from windward.xds.resource import CLUSTER

DELTA, SOTW = discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DiscoveryRequest
TEXT = st.text(max_size=200)
NAMES = st.lists(TEXT, max_size=6)
COMMON = {"type_url": TEXT, "response_nonce": TEXT}
DELTAS = st.fixed_dictionaries(
    {
        **COMMON,
        "resource_names_subscribe": NAMES,
        "resource_names_unsubscribe": NAMES,
        "initial_resource_versions": st.dictionaries(TEXT, TEXT, max_size=6),
    }
)
WORLDS = st.fixed_dictionaries({**COMMON, "version_info": TEXT, "resource_names": NAMES})
NODE = st.binary(max_size=40)


def whole(message: Any, raw: bytes) -> Any:
    """What protobuf says: the fields that streams read; None for no message."""
    try:
        return told(message.FromString(raw), message)
    except DecodeError:
        return None


def in_steps(message: Any, raw: bytes) -> Any:
    try:
        return told(at_once(taking_apart(message, raw, 0)), message)
    except DecodeError:
        return None


def told(request: Any, message: Any) -> Any:
    common = (request.type_url, request.response_nonce, request.node.id, request.HasField("node"))
    if message is SOTW:
        return (*common, request.version_info, list(request.resource_names))
    return (
        *common,
        list(request.resource_names_subscribe),
        list(request.resource_names_unsubscribe),
        dict(request.initial_resource_versions),
    )


@settings(deadline=None, max_examples=300)
@given(data=st.data())
@pytest.mark.parametrize(("message", "fields"), [(DELTA, DELTAS), (SOTW, WORLDS)])
def test_it_reads_as_protobuf_reads_it(message: Any, fields: Any, data: Any):
    """Of two messages behind one another too, whose lists are joined and of whose texts the last counts."""
    raw = b""
    for _ in range(data.draw(st.integers(1, 2))):
        made = message(**data.draw(fields))
        made.node.id = data.draw(TEXT)
        raw += made.SerializeToString()
    assert in_steps(message, raw) == whole(message, raw)
    at = data.draw(st.integers(0, len(raw)))
    bad = raw[:at] + data.draw(st.binary(max_size=6)) + raw[at + data.draw(st.integers(0, 3)) :]
    assert in_steps(message, bad) == whole(message, bad)


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=60))
@pytest.mark.parametrize("message", [DELTA, SOTW])
def test_so_are_bytes_of_any_kind(message: Any, raw: bytes):
    assert in_steps(message, raw) == whole(message, raw)


ENTRY = b"\x2a"


@pytest.mark.parametrize(
    "raw",
    [
        ENTRY + b"\x00",
        ENTRY + b"\x03\x12\x01v",
        ENTRY + b"\x06\x12\x01v\x0a\x01k",
        ENTRY + b"\x09\x0a\x01k\x0a\x01l\x12\x01v",
        ENTRY + b"\x08\x0a\x01k\x12\x01v\x18\x01",
        ENTRY + b"\x06\x0a\x01k\x12\x02v",
        ENTRY + b"\x06\x0a\x01\xff\x12\x01v",
        b"\x1a\x01\xff",
        b"\x18\x07",
        b"\x9a\x00\x01n",
        b"\x1a\x81\x00n",
        b"\x1a" + b"\x80" * 10 + b"\x00",
        b"\x02\x01n",
        b"\x23\x24",
        b"\xf9\x0712345678\xfd\x071234",
    ],
    ids=[
        "no key, no value", "no key", "value first", "two keys", "more in an entry", "an entry cut off", "a key that is no text",
        "a name that is no text", "a name as a number", "a long tag", "a long length", "a length without end", "field 0",
        "a group", "fields of fixed lengths",
    ],
)  # fmt: skip
def test_what_clients_do_not_write(raw: bytes):
    assert in_steps(DELTA, raw) == whole(DELTA, raw)


def test_thousands_are_read_in_steps():
    names = [f"outbound|80||{number}.example.com" for number in range(20 * FIELDS_A_STEP)]
    request = DELTA(type_url=CLUSTER, resource_names_subscribe=names)
    request.initial_resource_versions.update(dict.fromkeys(names, "0123456789abcdef"))
    work = taking_apart(DELTA, request.SerializeToString())
    steps = sum(1 for _ in work)
    assert steps >= 2 * len(names) // FIELDS_A_STEP - 1


def test_short_ones_protobuf_reads_itself():
    raw = DELTA(type_url=CLUSTER, resource_names_subscribe=["a"]).SerializeToString()
    assert not isinstance(at_once(taking_apart(DELTA, raw)), Apart)
    assert isinstance(at_once(taking_apart(DELTA, raw, 0)), Apart)


def test_streams_are_told_the_same():
    request = DELTA(type_url=CLUSTER, resource_names_subscribe=["a", "b"])
    request.initial_resource_versions["a"] = "1"
    variant = delta()
    event = variant.of(at_once(variant.parsing(request.SerializeToString())))
    assert (event.subscribe, event.initial_versions) == (("a", "b"), {"a": "1"})
    world = sotw()
    raw = SOTW(type_url=CLUSTER, resource_names=["a"], response_nonce="n").SerializeToString()
    event = world.of(at_once(world.parsing(raw)))
    assert (event.names, event.nonce) == (("a",), "n")
    with pytest.raises(RefusedError):
        at_once(variant.parsing(b"\x1a\xff"))
