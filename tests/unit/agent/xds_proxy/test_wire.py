"""Envelopes read from bytes say what protobuf's own runtime says, and bytes that are none are refused."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.agent.xds_proxy import wire
from services.agent.xds_proxy.wire import Request, WireError

DeltaRequest = discovery_pb2.DeltaDiscoveryRequest
DeltaResponse = discovery_pb2.DeltaDiscoveryResponse
text = st.text(max_size=200)
names = st.lists(text, max_size=5)
versions = st.dictionaries(text, text, max_size=5)


@given(text, names, names, versions, text, st.none() | text, st.none() | text)
def test_a_request_is_read_as_protobuf_writes_it_and_written_as_protobuf_reads_it(
    url, subscribe, unsubscribe, initial, nonce, error, node
):
    message = DeltaRequest(
        type_url=url,
        resource_names_subscribe=subscribe,
        resource_names_unsubscribe=unsubscribe,
        initial_resource_versions=initial,
        response_nonce=nonce,
    )
    if error is not None:
        message.error_detail.message = error
    if node is not None:
        message.node.id = node
    request = wire.read_request(message.SerializeToString())
    assert request == Request(
        url,
        tuple(subscribe),
        tuple(unsubscribe),
        initial,
        nonce,
        message.error_detail.SerializeToString() if error is not None else None,
        message.node.SerializeToString() if node is not None else None,
    )
    assert DeltaRequest.FromString(wire.write_request(request)) == message
    if request.error is not None:
        assert wire.message_of(request.error) == error


@given(
    text, text, text, names, st.lists(st.tuples(text, text, st.binary(max_size=300)), max_size=5)
)
def test_a_response_is_read_as_protobuf_writes_it(url, nonce, version, removed, resources):
    message = DeltaResponse(
        type_url=url, nonce=nonce, system_version_info=version, removed_resources=removed
    )
    for name, its_version, body in resources:
        added = message.resources.add(name=name, version=its_version, aliases=["an alias"])
        added.resource.type_url = url
        added.resource.value = body
    response = wire.read_response(message.SerializeToString())
    assert (response.type_url, response.nonce, response.version) == (url, nonce, version)
    assert list(response.removed) == removed
    assert [(item.name, item.version) for item in response.items] == [
        (name, its_version) for name, its_version, _ in resources
    ]
    assert [wire.body_of(item.entry) for item in response.items] == [r[2] for r in resources]
    entries = [item.entry for item in response.items]
    written = wire.write_response(url, entries, removed, version, nonce)
    assert DeltaResponse.FromString(written) == message


@given(text, text)
def test_another_nonce_leaves_the_rest_as_it_is(before, after):
    message = DeltaResponse(type_url="t", nonce=before, removed_resources=["gone"])
    message.control_plane.identifier = "not known here"
    changed = DeltaResponse.FromString(wire.with_nonce(message.SerializeToString(), after))
    assert changed.nonce == after
    changed.nonce = before
    assert changed == message


@given(text, names, text, text, st.none() | text)
def test_a_state_of_the_world_request_is_read(url, wanted, nonce, version, error):
    message: Any = discovery_pb2.DiscoveryRequest(
        type_url=url, resource_names=wanted, response_nonce=nonce, version_info=version
    )
    message.node.id = "sidecar~1"
    if error is not None:
        message.error_detail.message = error
    request = wire.read_sotw_request(message.SerializeToString())
    refused = message.error_detail.SerializeToString() if error is not None else None
    assert request == wire.SotwRequest(url, tuple(wanted), nonce, version, refused)


def test_a_node_that_comes_in_two_parts_is_one():
    """Protobuf merges a message field that comes twice."""
    first = DeltaRequest(node=base_pb2.Node(id="sidecar~1")).SerializeToString()
    second = DeltaRequest(node=base_pb2.Node(cluster="reviews")).SerializeToString()
    node = wire.read_request(first + second).node
    assert node is not None
    merged = DeltaRequest.FromString(first + second)
    assert type(merged.node).FromString(node) == merged.node


def test_a_status_says_why():
    made = status_pb2.Status.FromString(wire.status("no such address"))
    assert (made.code, made.message) == (3, "no such address")


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_to_be_refused(raw):
    for read in (wire.read_request, wire.read_response, wire.read_sotw_request, wire.body_of):
        try:
            read(raw)
        except WireError:
            continue
    wire.message_of(raw)


@given(st.binary(max_size=60))
def test_what_is_read_protobuf_reads_alike(raw):
    """Where both read it, they read the same; groups and other reserved forms are ours to refuse."""
    try:
        ours = wire.read_request(raw)
        theirs = DeltaRequest.FromString(raw)
    except (WireError, DecodeError):
        return
    assert (ours.type_url, ours.nonce) == (theirs.type_url, theirs.response_nonce)
    assert list(ours.subscribe) == list(theirs.resource_names_subscribe)
    assert dict(ours.initial_versions) == dict(theirs.initial_resource_versions)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\x12", "ends within a number"),
        (b"\x12\x05abc", "ends within a field"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "does not end"),
        (b"\x12\x02\xc3\x28", "UTF-8"),
        (b"\x10\x01", "a number where text"),
        (b"\x13", "wire type 3"),
        (b"\x02\x00", "number 0"),
        (b"\x0d\x01", "ends within a field"),
        (b"\x31no nonce", "a number where text"),
        (b"\x15text", "a number where text"),
    ],
)
def test_broken_bytes_say_what_is_wrong(raw: bytes, why: str):
    with pytest.raises(WireError, match=why):
        wire.read_request(raw)


def test_fields_of_fixed_width_are_passed_over():
    raw = b"\x4d1234" + b"\x5112345678" + DeltaRequest(type_url="t").SerializeToString()
    assert wire.read_request(raw).type_url == "t"
