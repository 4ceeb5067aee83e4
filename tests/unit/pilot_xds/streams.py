"""A source that tests change by hand, a call's context with a given peer, and a client of one ADS call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.service.discovery.v3 import discovery_pb2

from services.pilot.model.proxy import Proxy
from services.pilot.xds.connected import ConnectedProxies
from services.pilot.xds.limits import Limits
from services.pilot.xds.requests import Variant, delta, sotw
from services.pilot.xds.server import DiscoveryServer
from windward.xds.resource import ResourceSet

NODE_ID = "sidecar~10.0.0.1~reviews-v1.shop~shop.svc.cluster.local"
IDENTITY = "spiffe://cluster.local/ns/shop/sa/reviews"
WAIT_S = 10


class FakeSource:
    """services.pilot.model.source.ResourceSource with one group that everybody is in."""

    def __init__(self, current: ResourceSet) -> None:
        self.current = current
        self.attached: list[Proxy] = []
        self.wakes: dict[FakeView, Callable[[], None]] = {}

    @property
    def views(self) -> int:
        return len(self.wakes)

    async def attach(self, proxy: Proxy, wake: Callable[[], None]) -> FakeView:
        self.attached.append(proxy)
        view = FakeView(self)
        self.wakes[view] = wake
        return view

    def publish(self, resources: ResourceSet) -> None:
        self.current = resources
        for wake in list(self.wakes.values()):
            wake()


class FakeView:
    def __init__(self, source: FakeSource) -> None:
        self._source = source

    @property
    def current(self) -> ResourceSet:
        return self._source.current

    def detach(self) -> None:
        del self._source.wakes[self]


class FakeContext:
    """What the transport proved about a caller: nothing (plaintext), or a SPIFFE id and a certificate; and its window.

    ``write`` returns when the client has room for another message, as flow control has it; ``room`` is how many it takes.
    """

    def __init__(
        self, identity: str = "", certificate: bytes = b"", room: int = 1, **metadata: str
    ) -> None:
        self._metadata = tuple((key.replace("_", "-"), text) for key, text in metadata.items())
        self._auth: dict[str, list[bytes]] = {}
        if identity:
            self._auth["peer_spiffe_id"] = [identity.encode()]
        if certificate:
            self._auth["x509_pem_cert"] = [certificate]
        self.responses: asyncio.Queue[bytes] = asyncio.Queue(room)

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._auth

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def write(self, response: bytes) -> None:
        await self.responses.put(response)


def a_certificate(valid_for: timedelta) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    name = x509.Name([])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - timedelta(hours=2))
        .not_valid_after(now + valid_for)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Call:
    """One ADS call, driven by hand: what is sent is read by the server when it asks for it."""

    def __init__(self, message: Any) -> None:
        self._message = message
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._context = FakeContext()
        self._call: asyncio.Future[None] | None = None

    def start(self, behaviour: Any, context: FakeContext) -> None:
        self._context = context
        self._call = asyncio.ensure_future(behaviour(self._read(), context))

    async def _read(self) -> AsyncIterator[bytes]:
        while (raw := await self._requests.get()) is not None:
            yield raw

    def send_raw(self, raw: bytes) -> None:
        self._requests.put_nowait(raw)

    def send(self, **fields: Any) -> None:
        node = fields.pop("node", None)
        request = self._message(**fields)
        if node is not None:
            request.node.CopyFrom(node)
        self.send_raw(request.SerializeToString())

    def end(self) -> None:
        self._requests.put_nowait(None)

    async def next(self) -> Any:
        """The next response; None when the server ended the call."""
        assert self._call is not None
        taking = asyncio.ensure_future(self._context.responses.get())
        either: set[asyncio.Future[Any]] = {taking, self._call}
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not taking.done():
            taking.cancel()
            await self._call
            return None
        kind = (
            discovery_pb2.DeltaDiscoveryResponse
            if self._message is discovery_pb2.DeltaDiscoveryRequest
            else discovery_pb2.DiscoveryResponse
        )
        return kind.FromString(taking.result())

    async def close(self) -> None:
        if self._call is not None:
            self._call.cancel()
            await asyncio.wait({self._call})
            self._call = None


class Ads:
    """A discovery server without a transport."""

    def __init__(self, current: ResourceSet, limits: Limits = Limits()) -> None:  # noqa: B008  frozen
        self.source = FakeSource(current)
        self.connected = ConnectedProxies()
        self.server = DiscoveryServer(self.source, self.connected, limits, jitter=lambda: 0.5)

    def delta(
        self, context: FakeContext | None = None, only: str = ""
    ) -> AbstractAsyncContextManager[Call]:
        return self._call(discovery_pb2.DeltaDiscoveryRequest, delta(only), context)

    def sotw(
        self, context: FakeContext | None = None, only: str = ""
    ) -> AbstractAsyncContextManager[Call]:
        return self._call(discovery_pb2.DiscoveryRequest, sotw(only), context)

    @asynccontextmanager
    async def _call(
        self, message: Any, variant: Variant, context: FakeContext | None
    ) -> AsyncIterator[Call]:
        call = Call(message)
        call.start(self.server.behaviour(variant), context or FakeContext())
        try:
            yield call
        finally:
            await call.close()
