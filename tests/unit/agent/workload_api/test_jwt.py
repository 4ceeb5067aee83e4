"""Tokens are kept while they are young; key sets that hold stay in force."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.agent.workload_api import jwt
from services.agent.workload_api.jwt import JwtKeySet, JwtSvids, Token
from windward.identity.jwt_svid import JwtError, jwks_of, kid_of
from windward.identity.keys import new_key

LIFE = timedelta(minutes=5)


class Citadel:
    """Mints a new token for each request, or is away."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 1, 12, tzinfo=UTC)
        self.asked: list[Sequence[str]] = []
        self.away = False
        self.go = asyncio.Event()
        self.go.set()

    async def mint(self, audiences: Sequence[str]) -> Token:
        self.asked.append(audiences)
        await self.go.wait()
        if self.away:
            nothing: Any = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "away")
        return Token(f"token {len(self.asked)}", self.now + LIFE)


@pytest.fixture
def citadel() -> Citadel:
    return Citadel()


@pytest.fixture
def tokens(citadel: Citadel) -> JwtSvids:
    return JwtSvids(citadel.mint, lambda: citadel.now)


async def test_a_token_is_kept_for_half_its_life(citadel: Citadel, tokens: JwtSvids):
    first = await tokens.of(["b", "a"])
    citadel.now += LIFE / 2 - timedelta(seconds=1)
    assert await tokens.of(["a", "b", "a"]) is first
    citadel.now += timedelta(seconds=1)
    assert (await tokens.of(["a", "b"])).svid == "token 2"
    assert citadel.asked == [("a", "b")] * 2


async def test_other_audiences_are_another_token(citadel: Citadel, tokens: JwtSvids):
    assert await tokens.of(["a"]) != await tokens.of(["a", "b"])


async def test_those_who_ask_together_share_one_request(citadel: Citadel, tokens: JwtSvids):
    citadel.go.clear()
    asking = [asyncio.create_task(tokens.of(["a"])) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    citadel.go.set()
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert [token.svid for token in found[1:] if isinstance(token, Token)] == ["token 1"] * 4


async def test_citadel_away_an_old_token_serves_until_it_expires(
    citadel: Citadel, tokens: JwtSvids
):
    first = await tokens.of(["a"])
    citadel.away = True
    citadel.now += LIFE - timedelta(seconds=1)
    assert await tokens.of(["a"]) is first
    citadel.now += timedelta(seconds=1)
    with pytest.raises(grpc.aio.AioRpcError):
        await tokens.of(["a"])
    citadel.away = False
    assert (await tokens.of(["a"])).expires_at == citadel.now + LIFE


async def test_few_are_kept(citadel: Citadel, tokens: JwtSvids, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jwt, "MOST_KEPT", 2)
    for name in ("a", "b", "a", "c"):
        await tokens.of([name])
    assert citadel.asked == [("a",), ("b",), ("c",)]
    await tokens.of(["a"])
    await tokens.of(["b"])
    assert citadel.asked[3:] == [("b",)]


async def test_closing_ends_what_is_under_way(citadel: Citadel, tokens: JwtSvids):
    citadel.go.clear()
    asking = asyncio.create_task(tokens.of(["a"]))
    await asyncio.sleep(0)
    await tokens.close()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_key_set_that_does_not_hold_changes_nothing():
    keys, key = JwtKeySet(), new_key().public_key()
    waiting = asyncio.create_task(keys.changed(0))
    with pytest.raises(JwtError):
        keys.put(b'{"keys": [{"kty": "oct"}]}')
    assert (keys.jwks, keys.keys, keys.sequence) == (b"", {}, 0)
    good = jwks_of([key])
    keys.put(good)
    keys.put(good)
    await waiting
    assert keys.keys == {kid_of(key): key}
    assert keys.sequence == 1
    with pytest.raises(JwtError):
        keys.put(b"")
    assert keys.jwks == good


async def test_a_key_set_survives_a_restart(tmp_path: Path):
    file, key = tmp_path / "keys.jwks", new_key().public_key()
    JwtKeySet(file).put(jwks_of([key]))
    again = JwtKeySet(file)
    assert again.keys == {kid_of(key): key}
    await again.changed(0)
    assert {path.name for path in tmp_path.iterdir()} == {"keys.jwks"}


@pytest.mark.parametrize("left", [b"", b"{", b'{"keys": [{"kty": "oct"}]}', b" " * 10**6])
async def test_a_key_set_on_disk_that_does_not_hold_is_not_used(tmp_path: Path, left: bytes):
    file, key = tmp_path / "keys.jwks", new_key().public_key()
    file.write_bytes(left)
    keys = JwtKeySet(file)
    assert (keys.keys, keys.sequence) == ({}, 0)
    keys.put(jwks_of([key]))
    assert JwtKeySet(file).keys == {kid_of(key): key}


async def test_a_key_set_that_cannot_be_kept_is_used(tmp_path: Path):
    keys, key = JwtKeySet(tmp_path / "nowhere" / "keys.jwks"), new_key().public_key()
    keys.put(jwks_of([key]))
    assert keys.keys == {kid_of(key): key}
