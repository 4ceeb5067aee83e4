"""Envelopes: reading requests, and splicing responses from bytes that exist already.

A response is ``prefix + entries + nonce``: every entry is a resource with its tag and length (Resource.any_entry,
Resource.delta_entry), and concatenated fields are one message. Source: envoy/service/discovery/v3/discovery.proto.
"""

from __future__ import annotations

from collections.abc import Iterable

from windward.xds.resource import Resource


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text_field(number: int, value: str) -> bytes:
    encoded = value.encode()
    return varint(number << 3 | 2) + varint(len(encoded)) + encoded


def delta_response(
    type_url: str, resources: Iterable[Resource], removed: Iterable[str], version: str, nonce: str
) -> bytes:
    """DeltaDiscoveryResponse: system_version_info=1, resources=2, type_url=4, nonce=5, removed_resources=6."""
    parts = [text_field(1, version)]
    parts += [resource.delta_entry for resource in resources]
    parts.append(text_field(4, type_url))
    parts.append(text_field(5, nonce))
    parts += [text_field(6, name) for name in removed]
    return b"".join(parts)


def sotw_response(type_url: str, resources: Iterable[Resource], version: str, nonce: str) -> bytes:
    """DiscoveryResponse: version_info=1, resources=2, type_url=4, nonce=5."""
    parts = [text_field(1, version)]
    parts += [resource.any_entry for resource in resources]
    parts.append(text_field(4, type_url))
    parts.append(text_field(5, nonce))
    return b"".join(parts)
