"""A source that tests change by hand, a call's context with a given peer, and a client of one ADS call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
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


class FakeCall:
    """The server's side of a call (windward.rpc.http2.call), without a transport.

    What it proved about the caller: nothing (plaintext), or a SPIFFE id and a certificate. ``window``: how many responses fit
    that the client has not read.
    """

    def __init__(
        self, identity: str = "", certificate: bytes = b"", window: int = 1, **metadata: str
    ) -> None:
        self._metadata = tuple((key.replace("_", "-"), text) for key, text in metadata.items())
        self._auth: dict[str, list[bytes]] = {}
        if identity:
            self._auth["peer_spiffe_id"] = [identity.encode()]
        if certificate:
            self._auth["x509_pem_cert"] = [certificate]
        self._window = window
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._followed: (
            tuple[Callable[[bytes], None], Callable[[], None], Callable[[], None]] | None
        )
        self._followed = None
        self.responses: asyncio.Queue[bytes] = asyncio.Queue()

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._auth

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def heard(self) -> None:
        while self._requests.empty():
            await asyncio.sleep(0)

    async def receive(self) -> bytes | None:
        return await self._requests.get()

    def follow(
        self,
        on_message: Callable[[bytes], None],
        on_end: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        self._followed = (on_message, on_end, on_room)
        while not self._requests.empty():
            self.put(self._requests.get_nowait())

    def unfollow(self) -> None:
        self._followed = None

    @property
    def room(self) -> bool:
        return self.responses.qsize() < self._window

    def send(self, message: bytes) -> None:
        self.responses.put_nowait(message)

    def put(self, request: bytes | None) -> None:
        """The client sends a request; None: its last was sent."""
        if self._followed is None:
            self._requests.put_nowait(request)
        elif request is None:
            self._followed[1]()
        else:
            self._followed[0](request)

    async def taken(self) -> bytes:
        """The client reads a response, which makes room for another."""
        response = await self.responses.get()
        if self._followed is not None and self.room:
            self._followed[2]()
        return response


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
    """One ADS call, driven by hand."""

    def __init__(self, message: Any, behaviour: Callable[[Any], Any], call: FakeCall) -> None:
        self._message = message
        self._call = call
        self._serving: asyncio.Future[None] | None = asyncio.ensure_future(behaviour(call))

    def send_raw(self, raw: bytes) -> None:
        self._call.put(raw)

    def send(self, **fields: Any) -> None:
        node = fields.pop("node", None)
        request = self._message(**fields)
        if node is not None:
            request.node.CopyFrom(node)
        self.send_raw(request.SerializeToString())

    def end(self) -> None:
        self._call.put(None)

    async def next(self) -> Any:
        """The next response; None when the server ended the call."""
        assert self._serving is not None
        taking = asyncio.ensure_future(self._call.taken())
        either: set[asyncio.Future[Any]] = {taking, self._serving}
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not taking.done():
            taking.cancel()
            await self._serving
            return None
        kind = (
            discovery_pb2.DeltaDiscoveryResponse
            if self._message is discovery_pb2.DeltaDiscoveryRequest
            else discovery_pb2.DiscoveryResponse
        )
        return kind.FromString(taking.result())

    async def close(self) -> None:
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.wait({self._serving})
            self._serving = None


class Ads:
    """A discovery server without a transport."""

    def __init__(self, current: ResourceSet, limits: Limits = Limits()) -> None:  # noqa: B008  frozen
        self.source = FakeSource(current)
        self.connected = ConnectedProxies()
        self.server = DiscoveryServer(self.source, self.connected, limits, jitter=lambda: 0.5)

    def delta(
        self, at: FakeCall | None = None, only: str = ""
    ) -> AbstractAsyncContextManager[Call]:
        return self._call(discovery_pb2.DeltaDiscoveryRequest, delta(only), at)

    def sotw(self, at: FakeCall | None = None, only: str = "") -> AbstractAsyncContextManager[Call]:
        return self._call(discovery_pb2.DiscoveryRequest, sotw(only), at)

    @asynccontextmanager
    async def _call(
        self, message: Any, variant: Variant, at: FakeCall | None
    ) -> AsyncIterator[Call]:
        call = Call(message, partial(self.server.serve, variant), at or FakeCall())
        try:
            yield call
        finally:
            await call.close()
