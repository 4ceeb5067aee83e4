"""SDS over a unix socket: certificate and roots by delta, state of the world and fetch; pushed when they change."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from services.agent.sds.server import SERVICE, SecretServer
from services.agent.sds.store import SecretStore
from tests.unit.agent.sds.certificates import material, pair, put
from windward.rpc import server as servers
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.rpc.errors import ErrorInterceptor
from windward.xds.resource import SECRET

FIRST = material("first")
RENEWED = material("renewed", FIRST.roots_pem)
NEW_ROOTS = TlsMaterial(RENEWED.chain_pem, RENEWED.key_pem, FIRST.roots_pem + RENEWED.roots_pem)


@pytest.fixture
async def served(tmp_path):
    source = TlsSource(FIRST)
    store = SecretStore(source, mounts={})
    following = asyncio.create_task(store.run())
    server = servers.new_server(interceptors=[ErrorInterceptor()])
    server.add_generic_rpc_handlers((SecretServer(store).handlers(),))
    servers.listen_plaintext(server, f"unix:{tmp_path}/s.sock", setting="--state-dir")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s.sock") as channel:
        yield source, channel
    await server.stop(None)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


def secret(raw: bytes) -> dict[str, bytes]:
    parsed = secret_pb2.Secret.FromString(raw)
    if parsed.HasField("tls_certificate"):
        pair = parsed.tls_certificate
        return {
            "name": parsed.name.encode(),
            "chain": pair.certificate_chain.inline_bytes,
            "key": pair.private_key.inline_bytes,
        }
    return {
        "name": parsed.name.encode(),
        "roots": parsed.validation_context.trusted_ca.inline_bytes,
    }


CERTIFICATE_1 = {"name": b"default", "chain": FIRST.chain_pem, "key": FIRST.key_pem}
CERTIFICATE_2 = {"name": b"default", "chain": RENEWED.chain_pem, "key": RENEWED.key_pem}
ROOTS_1 = {"name": b"ROOTCA", "roots": FIRST.roots_pem}
ROOTS_2 = {"name": b"ROOTCA", "roots": NEW_ROOTS.roots_pem}


class Delta:
    """A client's delta stream that accepts all it gets."""

    def __init__(self, channel: Any) -> None:
        self.stream = channel.stream_stream(f"/{SERVICE}/DeltaSecrets")()

    async def send(self, **fields: Any) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=SECRET, **fields)
        await self.stream.write(request.SerializeToString())

    async def read(self) -> Any:
        response = discovery_pb2.DeltaDiscoveryResponse.FromString(await self.stream.read())
        await self.send(response_nonce=response.nonce)
        return response

    async def secrets(self) -> list[dict[str, bytes]]:
        return [secret(item.resource.value) for item in (await self.read()).resources]

    async def end(self) -> None:
        await self.stream.done_writing()
        assert await self.stream.read() is grpc.aio.EOF


async def test_delta_sends_what_was_asked_for(served):
    _, channel = served
    stream = Delta(channel)
    await stream.send(resource_names_subscribe=["default"])
    assert await stream.secrets() == [CERTIFICATE_1]
    await stream.send(resource_names_subscribe=["ROOTCA"])
    assert await stream.secrets() == [ROOTS_1]
    await stream.end()


async def test_delta_pushes_a_renewal_and_only_what_changed(served):
    source, channel = served
    stream = Delta(channel)
    await stream.send(resource_names_subscribe=["default", "ROOTCA"])
    assert await stream.secrets() == [ROOTS_1, CERTIFICATE_1]
    source.replace(RENEWED)
    assert await stream.secrets() == [CERTIFICATE_2]
    source.replace(NEW_ROOTS)
    assert await stream.secrets() == [ROOTS_2]
    await stream.end()


async def test_delta_says_what_does_not_exist(served):
    _, channel = served
    stream = Delta(channel)
    await stream.send(resource_names_subscribe=["another"])
    response = await stream.read()
    assert (list(response.resources), list(response.removed_resources)) == ([], ["another"])
    await stream.end()


async def test_a_refused_renewal_does_not_stop_the_next(served):
    source, channel = served
    stream = Delta(channel)
    await stream.send(resource_names_subscribe=["default"])
    assert await stream.secrets() == [CERTIFICATE_1]
    source.replace(RENEWED)
    refused = discovery_pb2.DeltaDiscoveryResponse.FromString(await stream.stream.read())
    await stream.send(response_nonce=refused.nonce, error_detail={"message": "no"})
    source.replace(FIRST)
    assert await stream.secrets() == [CERTIFICATE_1]
    stream.stream.cancel()


async def test_each_stream_has_its_own(served):
    source, channel = served
    first, second = Delta(channel), Delta(channel)
    for stream in (first, second):
        await stream.send(resource_names_subscribe=["default"])
        assert await stream.secrets() == [CERTIFICATE_1]
    source.replace(RENEWED)
    for stream in (first, second):
        assert await stream.secrets() == [CERTIFICATE_2]
        await stream.end()


async def test_state_of_the_world_pushes_a_renewal(served):
    source, channel = served
    stream = channel.stream_stream(f"/{SERVICE}/StreamSecrets")()
    names = ["default"]
    request = discovery_pb2.DiscoveryRequest(type_url=SECRET, resource_names=names)
    await stream.write(request.SerializeToString())
    for wanted in (CERTIFICATE_1, CERTIFICATE_2):
        response = discovery_pb2.DiscoveryResponse.FromString(await stream.read())
        assert [secret(item.value) for item in response.resources] == [wanted]
        request = discovery_pb2.DiscoveryRequest(
            type_url=SECRET, resource_names=names, response_nonce=response.nonce,
            version_info=response.version_info,
        )  # fmt: skip
        await stream.write(request.SerializeToString())
        source.replace(RENEWED)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_fetch(served):
    _, channel = served
    fetch = channel.unary_unary(f"/{SERVICE}/FetchSecrets")

    async def get(*names: str) -> list[dict[str, bytes]]:
        request = discovery_pb2.DiscoveryRequest(type_url=SECRET, resource_names=names)
        answer = await fetch(request.SerializeToString(), timeout=10)
        response = discovery_pb2.DiscoveryResponse.FromString(answer)
        return [secret(item.value) for item in response.resources]

    assert await get("default") == [CERTIFICATE_1]
    assert await get("ROOTCA", "default") == [ROOTS_1, CERTIFICATE_1]
    for names in (("another",), ("default", "another"), ()):
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await get(*names)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        assert "default, ROOTCA and mounted files" in (unknown.value.details() or "")


async def test_files_are_served_by_name_and_pushed_when_they_change(served, tmp_path):
    _, channel = served
    chain, key = pair("1")
    name = put(tmp_path / "files", chain, key)
    stream = Delta(channel)
    await stream.send(resource_names_subscribe=[name])
    assert await stream.secrets() == [{"name": name.encode(), "chain": chain, "key": key}]
    chain, key = pair("2")
    put(tmp_path / "new", chain, key)
    for file in ("cert.pem", "key.pem"):
        (tmp_path / "new" / file).rename(tmp_path / "files" / file)
    assert await stream.secrets() == [{"name": name.encode(), "chain": chain, "key": key}]
    await stream.end()


@pytest.mark.parametrize("method", ["DeltaSecrets", "StreamSecrets"])
async def test_what_is_no_request_is_refused(served, method):
    _, channel = served
    stream = channel.stream_stream(f"/{SERVICE}/{method}")()
    await stream.write(b"\x12\x05abc")
    with pytest.raises(grpc.aio.AioRpcError, match="not a discovery request") as refused:
        await stream.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_names_without_end_are_refused(served):
    _, channel = served
    stream = Delta(channel)
    await stream.send(resource_names_subscribe=[f"file-root:/{n}" for n in range(1001)])
    with pytest.raises(grpc.aio.AioRpcError, match="more than 1000 secrets"):
        await stream.stream.read()
