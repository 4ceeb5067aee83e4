"""Spliced bytes are the messages that protobuf would have made."""

from __future__ import annotations

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from windward.xds.envelope import delta_response, sotw_response, text_field, varint
from windward.xds.resource import CLUSTER, ROUTE, Resource

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
RESOURCES = st.lists(
    st.builds(Resource, st.just(CLUSTER), TEXT, st.binary(max_size=400)), max_size=8
)


@given(RESOURCES, st.lists(TEXT, max_size=5), TEXT, TEXT)
def test_delta_response_is_what_protobuf_reads(resources, removed, version, nonce):
    raw = delta_response(CLUSTER, resources, removed, version, nonce)
    read = discovery_pb2.DeltaDiscoveryResponse.FromString(raw)
    assert read.type_url == CLUSTER
    assert read.nonce == nonce
    assert read.system_version_info == version
    assert list(read.removed_resources) == removed
    assert [(r.name, r.version, r.resource.type_url, r.resource.value) for r in read.resources] == [
        (r.name, r.version, r.type_url, r.body) for r in resources
    ]


@given(RESOURCES, TEXT, TEXT)
def test_sotw_response_is_what_protobuf_reads(resources, version, nonce):
    read = discovery_pb2.DiscoveryResponse.FromString(
        sotw_response(ROUTE, resources, version, nonce)
    )
    assert (read.type_url, read.version_info, read.nonce) == (ROUTE, version, nonce)
    assert [(r.type_url, r.value) for r in read.resources] == [
        (r.type_url, r.body) for r in resources
    ]


def test_a_varint_carries_seven_bits_a_byte():
    assert varint(0) == b"\x00"
    assert varint(127) == b"\x7f"
    assert varint(128) == b"\x80\x01"
    assert varint(300) == b"\xac\x02"


def test_a_text_field_counts_bytes_not_characters():
    assert text_field(1, "é") == b"\x0a\x02\xc3\xa9"
