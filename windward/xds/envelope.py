"""Envelopes: reading requests, and splicing responses from bytes that exist already.

A response is ``body + nonce``, a body ``version + entries + type``: every entry is a resource with its tag and length
(Resource.any_entry, Resource.delta_entry), and concatenated fields are one message. All but the nonce is the same for
every stream that is sent the same resources at the same version. Source: envoy/service/discovery/v3/discovery.proto.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from windward.xds.resource import Resource

NONCE_TAG: Final = b"\x2a"
"""Field 5 of both responses, with a length before it."""


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


def nonce_field(nonce: str) -> bytes:
    """The last field of a response; a nonce is ASCII and shorter than 128 bytes."""
    return b"%b%c%b" % (NONCE_TAG, len(nonce), nonce.encode())


def delta_body(
    type_url: str, resources: Iterable[Resource], removed: Iterable[str], version: str
) -> bytes:
    """DeltaDiscoveryResponse: system_version_info=1, resources=2, type_url=4, removed_resources=6."""
    parts = [text_field(1, version)]
    parts += [resource.delta_entry for resource in resources]
    parts.append(text_field(4, type_url))
    parts += [text_field(6, name) for name in removed]
    return b"".join(parts)


def sotw_body(
    type_url: str, resources: Iterable[Resource], removed: Iterable[str], version: str
) -> bytes:
    """DiscoveryResponse: version_info=1, resources=2, type_url=4. What is removed is left out and not named."""
    del removed
    parts = [text_field(1, version)]
    parts += [resource.any_entry for resource in resources]
    parts.append(text_field(4, type_url))
    return b"".join(parts)


def delta_response(
    type_url: str, resources: Iterable[Resource], removed: Iterable[str], version: str, nonce: str
) -> bytes:
    """DeltaDiscoveryResponse, whole: nonce=5."""
    return delta_body(type_url, resources, removed, version) + text_field(5, nonce)


def sotw_response(type_url: str, resources: Iterable[Resource], version: str, nonce: str) -> bytes:
    """DiscoveryResponse, whole: nonce=5."""
    return sotw_body(type_url, resources, (), version) + text_field(5, nonce)
