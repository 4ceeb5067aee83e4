"""Channels: the pinned name, the certificate in force, the next address when one does not answer."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.unit.rpc.pki import DNS, METHOD, Authority, echo
from windward.rpc import server as servers
from windward.rpc.channel import ChannelSource
from windward.rpc.credentials import TlsSource
from windward.rpc.peer import peer_expiry, peer_identity


async def who(_, context):
    return str(peer_identity(context)).encode()


async def serve(authority, *, client_certificates=True, answer=who, dns=DNS):
    server = servers.new_server()
    server.add_generic_rpc_handlers((echo(answer),))
    source = TlsSource(authority.material("server", dns))
    listen = servers.listen_mtls if client_certificates else servers.listen_tls
    port = listen(server, "127.0.0.1:0", source, setting="--address")
    await server.start()
    return server, f"127.0.0.1:{port}"


async def ask(channels: ChannelSource, request: bytes = b"") -> bytes:
    method: Any = channels.channel().unary_unary(METHOD)
    answer: bytes = await method(request, timeout=20)
    return answer


def test_without_an_address_there_is_no_channel():
    with pytest.raises(ValueError, match="at least one address"):
        ChannelSource([])


async def test_one_channel_as_long_as_nothing_changes():
    channels = ChannelSource(["127.0.0.1:1"])
    assert channels.channel() is channels.channel()
    channels.next_address()
    assert channels.address == "127.0.0.1:1"
    await channels.close()


async def test_addresses_are_taken_in_turn():
    channels = ChannelSource(["a:1", "b:1", "c:1"])
    seen = []
    for _ in range(4):
        seen.append(channels.address)
        channels.next_address()
    assert seen == ["a:1", "b:1", "c:1", "a:1"]
    await channels.close()


async def test_the_next_address_is_called_after_the_first_failed():
    authority = Authority()
    server, address = await serve(authority)
    source = TlsSource(authority.material("client"))
    channels = ChannelSource(["127.0.0.1:1", address], server_name=DNS, source=source)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await ask(channels)
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    channels.next_address()
    assert await ask(channels) == b"spiffe://cluster.local/ns/default/sa/client"
    await channels.close()
    await server.stop(None)


async def test_a_new_certificate_is_shown_by_the_next_channel_and_old_calls_end_well():
    import asyncio

    authority = Authority()
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def slow_first(request, context):
        if request == b"slow":
            waiting.set()
            await go_on.wait()
        return await who(request, context)

    server, address = await serve(authority, answer=slow_first)
    source = TlsSource(authority.material("before"))
    channels = ChannelSource([address], server_name=DNS, source=source)
    slow = asyncio.create_task(ask(channels, b"slow"))
    await waiting.wait()
    first = channels.channel()
    source.replace(authority.material("after"))
    assert channels.channel() is not first
    assert (await ask(channels)).endswith(b"/sa/after")
    go_on.set()
    assert (await slow).endswith(b"/sa/before")
    await channels.close()
    await server.stop(None)


async def test_server_side_tls_needs_only_roots():
    authority = Authority()
    server, address = await serve(authority, client_certificates=False)
    channels = ChannelSource([address], server_name=DNS, roots_pem=authority.roots_pem)
    assert await ask(channels) == b"None"
    await channels.close()
    await server.stop(None)


@pytest.mark.parametrize("shown", ["other.windward.internal", None])
async def test_a_server_without_the_pinned_name_is_refused(shown):
    """A workload's certificate has a SPIFFE id alone: it cannot pose as the control plane."""
    authority = Authority()
    server = servers.new_server()
    names = [shown] if shown else []
    source = TlsSource(authority.material("workload", *names))
    port = servers.listen_tls(server, "127.0.0.1:0", source, setting="--address")
    await server.start()
    channels = ChannelSource([f"127.0.0.1:{port}"], server_name=DNS, roots_pem=authority.roots_pem)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(channels)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    await channels.close()
    await server.stop(None)


async def test_a_server_of_another_root_is_refused():
    server, address = await serve(Authority(), client_certificates=False)
    channels = ChannelSource([address], server_name=DNS, roots_pem=Authority().roots_pem)
    with pytest.raises(grpc.aio.AioRpcError):
        await ask(channels)
    await channels.close()
    await server.stop(None)


async def test_the_peers_expiry_is_its_certificates():
    authority = Authority()

    async def expiry(_, context):
        return str(peer_expiry(context)).encode()

    server, address = await serve(authority, answer=expiry)
    source = TlsSource(authority.material("client"))
    channels = ChannelSource([address], server_name=DNS, source=source)
    assert await ask(channels) == str(authority.validity.not_after).encode()
    await channels.close()
    await server.stop(None)
