"""Servers: one owner a port, loopback only in plaintext, certificates by port and by handshake, health and reflection."""

from __future__ import annotations

import ssl
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.unit.rpc.pki import DNS, METHOD, SERVICE, Authority, echo
from windward.process import FatalError
from windward.rpc import server as servers
from windward.rpc.credentials import TlsMaterial, TlsSource


async def same(request, _):
    return request


def channel(port: int, roots: bytes, own: TlsMaterial | None = None) -> Any:
    credentials = (
        grpc.ssl_channel_credentials(roots, own.key_pem, own.chain_pem)
        if own
        else grpc.ssl_channel_credentials(roots)
    )
    options = [("grpc.ssl_target_name_override", DNS), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options)


async def call(opened: Any) -> Any:
    async with opened:
        return await opened.unary_unary(METHOD)(b"hello", timeout=10)


async def served_serial(port: int) -> int:
    """The serial number of the certificate that a new handshake shows."""
    import asyncio

    from cryptography import x509

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(shown).serial_number


async def test_a_used_port_is_an_error_that_names_setting_and_address():
    first, second = servers.new_server(), servers.new_server()
    port = servers.listen_plaintext(first, "127.0.0.1:0", setting="--grpc-address")
    with pytest.raises(FatalError, match=rf"--grpc-address 127\.0\.0\.1:{port}: in use"):
        servers.listen_plaintext(second, f"127.0.0.1:{port}", setting="--grpc-address")
    source = TlsSource(Authority().material("server", DNS))
    for listen in (servers.listen_tls, servers.listen_mtls):
        with pytest.raises(FatalError, match=r"--tls-address .*: in use"):
            listen(second, f"127.0.0.1:{port}", source, setting="--tls-address")
    await first.stop(None)
    await second.stop(None)


@pytest.mark.parametrize(
    "address", ["0.0.0.0:0", "[::]:0", "10.0.0.1:15010", ":15010", "a.example:1"]
)
async def test_plaintext_stays_on_loopback(address):
    server = servers.new_server()
    with pytest.raises(FatalError, match="plaintext is served on loopback only"):
        servers.listen_plaintext(server, address, setting="--plaintext-address")
    await server.stop(None)


async def test_plaintext_over_a_unix_socket(tmp_path):
    server = servers.new_server()
    server.add_generic_rpc_handlers((echo(same),))
    path = f"unix:{tmp_path}/s.sock"
    servers.listen_plaintext(server, path, setting="--state-dir")
    await server.start()
    assert await call(grpc.aio.insecure_channel(path)) == b"hello"
    await server.stop(None)


async def test_whether_a_certificate_is_asked_for_belongs_to_the_port():
    authority = Authority()
    source = TlsSource(authority.material("server", DNS))
    server = servers.new_server()
    server.add_generic_rpc_handlers((echo(same),))
    tls = servers.listen_tls(server, "127.0.0.1:0", source, setting="--tls-address")
    mtls = servers.listen_mtls(server, "127.0.0.1:0", source, setting="--mtls-address")
    await server.start()
    client = authority.material("client")
    assert await call(channel(tls, authority.roots_pem)) == b"hello"
    assert await call(channel(mtls, authority.roots_pem, client)) == b"hello"
    for own in (None, Authority().material("client")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(channel(mtls, authority.roots_pem, own))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(None)


async def test_a_new_certificate_is_shown_by_the_next_handshake():
    authority = Authority()
    source = TlsSource(authority.material("server", DNS))
    server = servers.new_server()
    port = servers.listen_tls(server, "127.0.0.1:0", source, setting="--tls-address")
    await server.start()
    before = await served_serial(port)
    assert await served_serial(port) == before
    source.replace(authority.material("server", DNS))
    assert await served_serial(port) != before
    await server.stop(None)


async def test_new_roots_admit_new_clients_and_refuse_old_ones():
    old, new = Authority(), Authority()
    own = old.material("server", DNS)
    source = TlsSource(own)
    server = servers.new_server()
    server.add_generic_rpc_handlers((echo(same),))
    port = servers.listen_mtls(server, "127.0.0.1:0", source, setting="--mtls-address")
    await server.start()
    assert await call(channel(port, old.roots_pem, old.material("client"))) == b"hello"
    source.replace(TlsMaterial(own.chain_pem, own.key_pem, new.roots_pem))
    assert await call(channel(port, old.roots_pem, new.material("client"))) == b"hello"
    with pytest.raises(grpc.aio.AioRpcError):
        await call(channel(port, old.roots_pem, old.material("client")))
    await server.stop(None)


async def test_a_request_over_the_limit_is_refused_and_the_next_served():
    server = servers.new_server()
    server.add_generic_rpc_handlers((echo(same),))
    port = servers.listen_plaintext(server, "127.0.0.1:0", setting="--grpc-address")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        method: Any = opened.unary_unary(METHOD)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(bytes(servers.MESSAGE_LIMIT_BYTES + 1), timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await method(b"small", timeout=10) == b"small"
    await server.stop(None)


async def test_a_limit_of_ones_own_wins_over_the_kits():
    server = servers.new_server(options=(("grpc.max_receive_message_length", 1024),))
    server.add_generic_rpc_handlers((echo(same),))
    port = servers.listen_plaintext(server, "127.0.0.1:0", setting="--grpc-address")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        method: Any = opened.unary_unary(METHOD)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await method(bytes(1025), timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await method(bytes(1024), timeout=10) == bytes(1024)
    await server.stop(None)


async def test_health_and_reflection():
    server = servers.new_server()
    health = servers.add_standard_services(server, [SERVICE])
    port = servers.listen_plaintext(server, "127.0.0.1:0", setting="--grpc-address")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        stub: Any = health_pb2_grpc.HealthStub(opened)
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        await servers.set_serving(health, [SERVICE])
        for name in ("", SERVICE):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        reflector: Any = reflection_pb2_grpc
        reflected = reflector.ServerReflectionStub(opened).ServerReflectionInfo(asked, timeout=10)
        names = {
            service.name
            async for answer in reflected
            for service in answer.list_services_response.service
        }
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    await server.stop(None)
