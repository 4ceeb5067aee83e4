"""gRPC servers: bounded, one owner a port, certificates reloaded for each handshake.

Peers that are gone are noticed by pings (30 s + 10 s), connections without a call are closed after five minutes.

grpc.aio shares a used port silently unless told not to (``grpc.so_reuseport``), so it is told not to. Whether client
certificates are asked for belongs to the port: callers with a token and callers with a certificate have one each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from windward.process import FatalError
from windward.rpc.credentials import TlsSource

MESSAGE_LIMIT_BYTES = 4 * 1024 * 1024
OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_concurrent_streams", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_connection_idle_ms", 300_000),
    ("grpc.server_handshake_timeout_ms", 20_000),
    ("grpc.max_metadata_size", 16 * 1024),
)


def new_server(
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    options: Sequence[tuple[str, Any]] = (),
) -> grpc.aio.Server:
    """A server without ports or services; later options win over the kit's."""
    # Of two options of one name grpc takes the first.
    merged = {**dict(OPTIONS), **dict(options)}
    return grpc.aio.server(interceptors=list(interceptors), options=list(merged.items()))


def listen_plaintext(server: grpc.aio.Server, address: str, *, setting: str) -> int:
    """Serve without TLS; loopback and unix sockets only. Returns the port."""
    check_local(address, setting)
    return _bind(lambda: server.add_insecure_port(address), address, setting)


def check_local(address: str, setting: str) -> None:
    """FatalError for an address that others than this machine's processes can reach."""
    host = address.rpartition(":")[0].strip("[]")
    if not (
        address.startswith("unix:")
        or host == "localhost"
        or host.startswith("127.")
        or host == "::1"
    ):
        raise FatalError(
            f"{setting} {address}: plaintext is served on loopback only; use the mTLS port"
        )


def listen_tls(server: grpc.aio.Server, address: str, source: TlsSource, *, setting: str) -> int:
    """Serve with a server certificate, asking callers for none. Returns the port."""
    credentials = _credentials(source, require_client=False)
    return _bind(lambda: server.add_secure_port(address, credentials), address, setting)


def listen_mtls(server: grpc.aio.Server, address: str, source: TlsSource, *, setting: str) -> int:
    """Serve callers that prove themselves by a certificate under the source's roots. Returns the port."""
    credentials = _credentials(source, require_client=True)
    return _bind(lambda: server.add_secure_port(address, credentials), address, setting)


def _bind(bind: Any, address: str, setting: str) -> int:
    try:
        port = int(bind())
    except RuntimeError:
        port = 0
    if not port and not address.startswith("unix:"):
        raise FatalError(
            f"{setting} {address}: in use, or not an address of this machine; choose another one"
        )
    return port


def _credentials(source: TlsSource, *, require_client: bool) -> grpc.ServerCredentials:
    """Credentials that follow the source: grpc asks for each handshake, None means unchanged."""
    served = 0

    def configuration() -> grpc.ServerCertificateConfiguration:
        material = source.current
        return grpc.ssl_server_certificate_configuration(
            [(material.key_pem, material.chain_pem)], material.roots_pem if require_client else None
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        if served == source.sequence:
            return None
        served = source.sequence
        return configuration()

    served = source.sequence
    return grpc.dynamic_ssl_server_credentials(configuration(), fetch, require_client)  # type: ignore[arg-type]


def add_standard_services(server: Any, services: Sequence[str]) -> HealthServicer:
    """GRPC health (all named services SERVING) and reflection. Returns health, to say NOT_SERVING on drain.

    ``server``: grpc.aio's, or a ``windward.rpc.http2.server.Http2Server``.
    """
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    names = [*services, "grpc.health.v1.Health", reflection.SERVICE_NAME]
    reflected: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    reflected(ReflectionServicer(names), server)
    return health


async def set_serving(health: HealthServicer, services: Sequence[str]) -> None:
    """Say SERVING for the whole server (empty name) and for each service."""
    for name in ("", *services):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
