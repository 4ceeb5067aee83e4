"""A whole Citadel: how the administrator gets in, what a stranger can do, what a restart keeps."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.citadel.authn import tokens
from tests.unit.citadel.running import Running, citadel
from windward.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from windward.api.trust.v1 import trust_pb2, trust_pb2_grpc
from windward.client.certificates import CertificateKeeper
from windward.identity.certificate import identity_of, load_chain
from windward.identity.csr import LIMIT_BYTES, new_csr
from windward.identity.keys import new_key
from windward.identity.names import ADMIN_ACCOUNT, ROOT_NAMESPACE
from windward.identity.spiffe_id import workload_id
from windward.process import FatalError
from windward.rpc.channel import ChannelSource
from windward.store.memory import MemoryStore

ADMINISTRATOR = workload_id("cluster.local", ROOT_NAMESPACE, ADMIN_ACCOUNT)
ALICE = workload_id("cluster.local", "shop", "alice")
CREATE = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
CALL_S = 10.0


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    async with citadel(tmp_path, MemoryStore(), monkeypatch) as started:
        yield started


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def by_token(running: Running, identity: Any) -> CertificateKeeper:
    return CertificateKeeper(running.enrolment(identity, running.bootstrap / "admin.token"))


async def test_from_the_bootstrap_folder_to_a_workloads_certificate(running: Running):
    admin = await by_token(running, ADMINISTRATOR).first()
    channels = running.by_mtls(admin)
    trust = trust_pb2_grpc.TrustServiceStub(channels.channel())
    request = trust_pb2.CreateJoinTokenRequest(identity=str(ALICE))
    token = (await trust.CreateJoinToken(request, timeout=CALL_S)).token
    await channels.close()
    alice = await CertificateKeeper(running.enrolment(ALICE, token)).first()
    assert identity_of(load_chain(alice.current.chain_pem)[0]) == ALICE
    channels = running.by_mtls(alice)
    trust = trust_pb2_grpc.TrustServiceStub(channels.channel())
    refused = trust.CreateJoinToken(request, timeout=CALL_S)
    assert await code_of(refused) is grpc.StatusCode.PERMISSION_DENIED
    await channels.close()


async def test_the_bootstrap_folder(running: Running):
    token = running.bootstrap / "admin.token"
    assert token.stat().st_mode & 0o777 == 0o600
    assert (running.base / "kek").stat().st_mode & 0o777 == 0o600
    (root,) = load_chain(running.roots_pem)
    assert str(identity_of(root)) == "spiffe://cluster.local"
    assert b"PRIVATE" not in running.roots_pem
    assert not [path for path in running.bootstrap.iterdir() if path.suffix == ".new"]


async def test_a_restart_keeps_the_root_and_a_token_that_was_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = MemoryStore()
    async with citadel(tmp_path, store, monkeypatch) as first:
        root, token = first.roots_pem, (first.bootstrap / "admin.token").read_text()
    async with citadel(tmp_path, store, monkeypatch) as second:
        assert second.roots_pem == root
        assert (second.bootstrap / "admin.token").read_text() == token
        await by_token(second, ADMINISTRATOR).first()
    async with citadel(tmp_path, store, monkeypatch) as third:
        fresh = (third.bootstrap / "admin.token").read_text()
        assert fresh != token, "a token that is used up helps nobody: a restart makes another one"
        assert await tokens.usable(store, fresh)


async def test_another_key_encryption_key_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = MemoryStore()
    async with citadel(tmp_path, store, monkeypatch):
        pass
    (tmp_path / "kek").write_bytes(b"x" * 32)
    with pytest.raises(FatalError, match="--kek-file"):
        async with citadel(tmp_path, store, monkeypatch):
            pass


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"trust_domain": "Upper"}, "trust domain"),
        ({"kek_file": "/proc/none/kek"}, "--kek-file"),
        ({"metrics_address": "nowhere"}, "--metrics-address"),
    ],
)
async def test_settings_with_which_it_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], named: str
):
    with pytest.raises(FatalError, match=named):
        async with citadel(tmp_path, MemoryStore(), monkeypatch, **settings):
            pass


async def test_a_port_asks_for_what_it_is_there_for(running: Running):
    """No certificate, no handshake on the mTLS port; and the server is known by its DNS name alone."""
    plain = ChannelSource(
        [running.address("mtls")],
        server_name="citadel.windward.internal",
        roots_pem=running.roots_pem,
    )
    wrong = ChannelSource(
        [running.address("tls")], server_name="pilot.windward.internal", roots_pem=running.roots_pem
    )
    for channels in (plain, wrong):
        stub = ca_pb2_grpc.IstioCertificateServiceStub(channels.channel())
        call = stub.CreateCertificate(ca_pb2.IstioCertificateRequest(), timeout=CALL_S)
        assert await code_of(call) is grpc.StatusCode.UNAVAILABLE
        await channels.close()


async def test_the_bundle_is_for_everyone(running: Running):
    channels = running.by_tls()
    stream = trust_pb2_grpc.TrustServiceStub(channels.channel()).WatchTrustBundle(
        trust_pb2.WatchTrustBundleRequest(), timeout=CALL_S
    )
    bundle = await anext(aiter(stream))
    assert bundle.roots_pem.encode() == running.roots_pem
    stream.cancel()
    await channels.close()


async def test_a_drain_ends_streams_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with citadel(tmp_path, MemoryStore(), monkeypatch) as running:
        channels = running.by_tls()
        stream = aiter(
            trust_pb2_grpc.TrustServiceStub(channels.channel()).WatchTrustBundle(
                trust_pb2.WatchTrustBundleRequest(), timeout=CALL_S
            )
        )
        await anext(stream)
        health: Any = health_pb2_grpc.HealthStub(channels.channel())
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert await anext(stream, None) is None
    await channels.close()


def strangers(seed: int) -> list[tuple[bytes, tuple[tuple[str, str | bytes], ...]]]:
    """Bodies and metadata of strangers: protobuf or not, tokens or not, all legal as gRPC frames."""
    chance = random.Random(seed)
    made: list[tuple[bytes, tuple[tuple[str, str | bytes], ...]]] = []
    for _ in range(60):
        text = "".join(chr(chance.randrange(32, 127)) for _ in range(chance.randrange(200)))
        body = chance.choice(
            [
                chance.randbytes(chance.randrange(300)),
                ca_pb2.IstioCertificateRequest(
                    csr=text, validity_duration=2**62
                ).SerializeToString(),
                ca_pb2.IstioCertificateRequest(csr="x" * 10 * LIMIT_BYTES).SerializeToString(),
                b"\x0a\xff\xff\xff\xff\x0f",
                b"\x22" + b"\x80" * 40,
            ]
        )
        metadata = chance.choice(
            [
                (),
                (("authorization", "Bearer " + text.strip()),),
                (("authorization", "Bearer wwjt_" + text.strip()),),
                (("authorization", text.strip()), ("authorization", text.strip())),
                (("authorization-bin", chance.randbytes(30)), ("clusterid", text.strip())),
                (("x-padding", "p" * 6000),),
            ]
        )
        made.append((body, metadata))
    return made


async def test_strangers_can_neither_crash_it_nor_get_anything(running: Running):
    channels = running.by_tls()
    call: Any = channels.channel().unary_unary(CREATE)
    for body, metadata in strangers(7):
        code = await code_of(call(body, metadata=metadata, timeout=CALL_S))
        # A body that is no protobuf is refused before the caller is looked at.
        assert code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNKNOWN}
    good = ca_pb2.IstioCertificateRequest(csr=new_csr(new_key(), ALICE).decode())
    stub = ca_pb2_grpc.IstioCertificateServiceStub(channels.channel())
    refused = stub.CreateCertificate(good, timeout=CALL_S)
    assert await code_of(refused) is grpc.StatusCode.UNAUTHENTICATED
    await channels.close()
    admin = await by_token(running, ADMINISTRATOR).first()
    assert identity_of(load_chain(admin.current.chain_pem)[0]) == ADMINISTRATOR


async def test_a_message_over_the_limit_is_refused_unread(running: Running):
    channels = running.by_tls()
    call: Any = channels.channel().unary_unary(CREATE)
    code = await code_of(call(b"\x0a" + b"x" * 5_000_000, timeout=CALL_S))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await channels.close()


async def test_one_use_is_one_certificate_however_many_race(running: Running):
    token = await tokens.create(running.store, ALICE, 60, 1)
    request = ca_pb2.IstioCertificateRequest(csr=new_csr(new_key(), ALICE).decode())
    channels = running.by_tls()
    stub = ca_pb2_grpc.IstioCertificateServiceStub(channels.channel())
    metadata = (("authorization", f"Bearer {token.secret}"),)
    codes = await asyncio.gather(
        *(
            code_of(stub.CreateCertificate(request, metadata=metadata, timeout=CALL_S))
            for _ in range(12)
        )
    )
    assert codes.count(grpc.StatusCode.OK) == 1
    assert codes.count(grpc.StatusCode.UNAUTHENTICATED) == 11
    await channels.close()


async def test_the_strict_mode_as_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with citadel(tmp_path, MemoryStore(), monkeypatch, csr_mode="strict") as running:
        channels = running.by_mtls(await by_token(running, ADMINISTRATOR).first())
        stub = ca_pb2_grpc.IstioCertificateServiceStub(channels.channel())
        for identity, expected in (
            (ADMINISTRATOR, grpc.StatusCode.OK),
            (ALICE, grpc.StatusCode.INVALID_ARGUMENT),
        ):
            csr = new_csr(new_key(), identity).decode()
            request = ca_pb2.IstioCertificateRequest(csr=csr)
            call = stub.CreateCertificate(request, timeout=CALL_S)
            assert await code_of(call) is expected
        await channels.close()
