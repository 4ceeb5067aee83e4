"""JWT-SVIDs of one identity, kept until half their life is over; and the keys that verify everybody's.

audiences -> kept and young? -> else Citadel mints (one request at a time for the same audiences)
Citadel away: an old token is given while it is valid; the last key set stays in force
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from windward.api.trust.v1 import trust_pb2, trust_pb2_grpc
from windward.identity.jwt_svid import JWKS_LIMIT_BYTES, JwtError, load_jwks
from windward.rpc.channel import ChannelSource
from windward.telemetry.logging import get_logger

log = get_logger()
CALL_TIMEOUT_S = 5.0
MOST_KEPT = 256


@dataclass(frozen=True, slots=True)
class Token:
    svid: str
    expires_at: datetime


Mint = Callable[[Sequence[str]], Awaitable[Token]]


@dataclass(frozen=True, slots=True)
class _Kept:
    token: Token
    renew_at: datetime


class JwtSvids:
    """Tokens by their audiences; the order in which those are asked for makes no difference."""

    def __init__(self, mint: Mint, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._mint = mint
        self._now = now
        self._kept: OrderedDict[tuple[str, ...], _Kept] = OrderedDict()
        self._flights: dict[tuple[str, ...], asyncio.Task[Token]] = {}

    async def of(self, audiences: Sequence[str]) -> Token:
        """A token with at least half its life left; less only while Citadel gives none. Raises AioRpcError."""
        key = tuple(sorted(set(audiences)))
        kept = self._kept.get(key)
        if kept is not None and self._now() < kept.renew_at:
            self._kept.move_to_end(key)
            return kept.token
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fresh(key))
            flight.add_done_callback(lambda done: self._landed(key, done))
        try:
            # Whoever asked first may go away: others wait for the same answer.
            return await asyncio.shield(flight)
        except grpc.aio.AioRpcError:
            if kept is not None and self._now() < kept.token.expires_at:
                return kept.token
            raise

    async def close(self) -> None:
        flights = tuple(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fresh(self, key: tuple[str, ...]) -> Token:
        token = await self._mint(key)
        now = self._now()
        self._kept[key] = _Kept(token, now + (token.expires_at - now) / 2)
        self._kept.move_to_end(key)
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return token

    def _landed(self, key: tuple[str, ...], flight: asyncio.Task[Token]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # whoever waits gets it; if nobody does any more, it is no fault


class JwtKeySet:
    """The trust domain's key set, as Citadel tells it; kept in a file, so that a restart needs no Citadel."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self.jwks = b""
        """Empty until the first has come."""
        self.keys: dict[str, ec.EllipticCurvePublicKey] = {}
        self.sequence = 0
        self._changed = asyncio.Event()
        if file is not None and file.exists():
            try:
                with file.open("rb") as opened:
                    self._take(opened.read(JWKS_LIMIT_BYTES + 1))
            except (OSError, JwtError) as error:
                log.warning("jwt_bundle.on_disk_unusable", reason=str(error))

    def put(self, jwks: bytes) -> None:
        """Raises JwtError, and the last good set stays."""
        if jwks == self.jwks:
            return
        self._take(jwks)
        if self._file is not None:
            self._keep(self._file)

    def _keep(self, file: Path) -> None:
        """A disk that is full is no reason to be without keys."""
        new = file.with_name(file.name + ".new")
        try:
            new.write_bytes(self.jwks)
            new.replace(file)
        except OSError as error:
            log.warning("jwt_bundle.not_kept", reason=str(error))

    def _take(self, jwks: bytes) -> None:
        keys = load_jwks(jwks)
        self.jwks, self.keys = jwks, keys
        self.sequence += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, after_sequence: int) -> None:
        while self.sequence <= after_sequence:
            await self._changed.wait()


def minting(channels: ChannelSource) -> Mint:
    """Citadel's minting, by the certificate of the channels: that alone says for whom."""

    async def mint(audiences: Sequence[str]) -> Token:
        stub = trust_pb2_grpc.TrustServiceStub(channels.channel())
        request = trust_pb2.MintJwtSvidRequest(audience=audiences)
        answer = await stub.MintJwtSvid(request, timeout=CALL_TIMEOUT_S)
        return Token(answer.svid, answer.expires_at.ToDatetime(UTC))

    return mint


async def follow_keys(channels: ChannelSource, into: JwtKeySet) -> None:
    """For ever; a broken stream is opened again."""
    while True:
        stub = trust_pb2_grpc.TrustServiceStub(channels.channel())
        try:
            async for bundle in stub.WatchJwtBundle(trust_pb2.WatchJwtBundleRequest()):
                into.put(bundle.jwks)
        except grpc.aio.AioRpcError as error:
            log.debug("jwt_bundle.stream_broken", reason=error.code().name)
        except JwtError as error:
            log.warning("jwt_bundle.refused", reason=str(error))
        await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
