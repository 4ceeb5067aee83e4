"""Small pieces that many messages hold: addresses, durations, Anys, config sources."""

from __future__ import annotations

from collections.abc import Callable

from envoy.config.core.v3 import address_pb2, config_source_pb2, grpc_service_pb2
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message

from windward.xds.resource import Origin, Resource

UINT32_MAX = 4294967295
Failed = Callable[[tuple[Origin, ...], Exception], None]
"""Told of objects that what they make cannot be built with, and why."""
SDS_CLUSTER = "sds-grpc"


def passed_on(_: tuple[Origin, ...], error: Exception) -> None:
    """Who does not know what to do without a part has none of the others either."""
    raise error


def pack(message: Message) -> any_pb2.Any:
    """An Any with deterministic content: equal messages are equal bytes."""
    return any_pb2.Any(
        type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}",
        value=message.SerializeToString(deterministic=True),
    )


def resource(
    type_url: str, name: str, message: Message, origins: tuple[Origin, ...] = ()
) -> Resource:
    return Resource(type_url, name, message.SerializeToString(deterministic=True), origins)


def address(host: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=host, port_value=port)
    )


def duration(seconds: float) -> duration_pb2.Duration:
    nanos = round(seconds * 1_000_000_000)
    return duration_pb2.Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def ads() -> config_source_pb2.ConfigSource:
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )


def sds() -> config_source_pb2.ConfigSource:
    """Secrets come from the agent, over its socket: Pilot never sees a key."""
    service = grpc_service_pb2.GrpcService(
        envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=SDS_CLUSTER)
    )
    api = config_source_pb2.ApiConfigSource(
        api_type=config_source_pb2.ApiConfigSource.GRPC,
        transport_api_version=config_source_pb2.ApiVersion.V3,
        grpc_services=[service],
        set_node_on_first_message_only=True,
    )
    return config_source_pb2.ConfigSource(
        api_config_source=api, resource_api_version=config_source_pb2.ApiVersion.V3
    )
