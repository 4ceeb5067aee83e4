"""Every distinct resource that the fleet was sent, read by Envoy's own message types, what lies in Anys too.

The fleet itself only looks at names and references; its ``--bodies`` file keeps what it saw: type, length, bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import any_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

MESSAGES: tuple[type[Message], ...] = (
    cluster_pb2.Cluster,
    endpoint_pb2.ClusterLoadAssignment,
    listener_pb2.Listener,
    route_pb2.RouteConfiguration,
    extension_pb2.TypedExtensionConfig,
)
"""In the order of the fleet's types."""
HEAD = struct.Struct("=II")


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(type, body); what is only half written at the end is left out."""
    data = path.read_bytes()
    at = 0
    while at + HEAD.size <= len(data):
        kind, size = HEAD.unpack_from(data, at)
        at += HEAD.size + size
        if at <= len(data):
            yield kind, data[at - size : at]


def unreadable(path: Path, most: int) -> tuple[int, int]:
    """(contents read, how many of them are no messages of their type), of the first ``most``."""
    read = bad = 0
    for kind, body in records(path):
        if read == most:
            break
        read += 1
        bad += not readable(MESSAGES[kind], body)
    return read, bad


def readable(message: type[Message], body: bytes) -> bool:
    try:
        made = message.FromString(body)
        return all(_known(item) for item in _anys(made))
    except DecodeError:
        return False


def _known(item: any_pb2.Any) -> bool:
    """Whether what is packed can be unpacked; a type that nobody here knows passes."""
    try:
        described = descriptor_pool.Default().FindMessageTypeByName(item.TypeName())
    except KeyError:
        return True
    return readable(message_factory.GetMessageClass(described), item.value)


def _anys(message: Message) -> Iterator[any_pb2.Any]:
    if isinstance(message, any_pb2.Any):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if isinstance(value, Message):
            yield from _anys(value)
        elif field.message_type.GetOptions().map_entry:
            yield from (
                found
                for item in value.values()
                if isinstance(item, Message)
                for found in _anys(item)
            )
        else:
            yield from (found for item in value for found in _anys(item))
