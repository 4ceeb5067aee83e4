"""The Pilots of a mesh: each says in the store where it can be asked, for as long as it lives.

    own address on a lease ─► store ─► every Pilot follows the list ─► a channel to each of the others

They share nothing else. Who answers at such an address proves by its certificate that it is a Pilot, and lets in only whom
everybody may read from (access.py): what is in the list is a place to ask, and no more.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import grpc

from windward.identity.names import CONTROL_PLANE_DNS, PILOT_ACCOUNT
from windward.rpc.channel import ChannelSource
from windward.rpc.credentials import TlsSource
from windward.store.errors import StoreError
from windward.store.follow import follow
from windward.store.keys import PILOTS, pilot_key
from windward.store.protocol import Put, Store, Transaction, Write
from windward.telemetry.logging import get_logger

log = get_logger()
TTL_S: Final = 15.0
RETRY_S: Final = 1.0


class Pilots:
    """One owner; ``run`` until cancelled, then ``leave``."""

    def __init__(
        self, store: Store, address: str, source: TlsSource, *, listed: bool = True
    ) -> None:
        """``address``: where the others reach this one. ``listed``: whether it says so, or another process of it does."""
        self.address = address
        self._store = store
        self._source = source
        self._listed = listed
        self._lease = 0
        self._others: dict[str, ChannelSource] = {}

    def channels(self) -> Mapping[str, grpc.aio.Channel]:
        """Address -> channel, of all the others."""
        return {address: found.channel() for address, found in sorted(self._others.items())}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            if self._listed:
                group.create_task(self._stay())

    async def leave(self) -> None:
        """Be asked no more."""
        if self._lease:
            with suppress(StoreError):
                await self._store.revoke(self._lease)
        for found in self._others.values():
            await found.close()
        self._others.clear()

    async def _stay(self) -> None:
        """Be in the list; again when the store has forgotten the lease."""
        while True:
            try:
                self._lease = (await self._store.grant(TTL_S)).id
                write = Write(pilot_key(self.address), b"", self._lease)
                await self._store.commit(Transaction((write,)))
                while True:
                    await asyncio.sleep(TTL_S / 3)
                    await self._store.keep_alive(self._lease)
            except StoreError as error:
                log.info("pilots.not_listed", reason=str(error))
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        async for batch in follow(self._store, PILOTS):
            for change in batch.changes:
                key = change.entry.key if isinstance(change, Put) else change.key
                address = key.removeprefix(PILOTS)
                if not isinstance(change, Put):
                    if gone := self._others.pop(address, None):
                        await gone.close()
                elif address not in self._others and address != self.address:
                    self._others[address] = ChannelSource(
                        [address], server_name=CONTROL_PLANE_DNS[PILOT_ACCOUNT], source=self._source
                    )


async def host_of(listening: str, store: tuple[str, int] | None) -> str:
    """How others reach what listens there: for all interfaces it is the one that leads to the store, which all of them reach.

    ``listening``: host:port. ``store``: host and port of it, None for one in memory.
    """
    host = listening.rpartition(":")[0]
    if host and not _is_everywhere(host):
        return host
    if store is None:
        return "127.0.0.1"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(*store, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as toward:
            toward.connect(where)  # sends nothing: it asks the kernel for a route
            own = str(toward.getsockname()[0])
    except OSError:
        return socket.gethostname()
    return f"[{own}]" if family == socket.AF_INET6 else own


def _is_everywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return False
