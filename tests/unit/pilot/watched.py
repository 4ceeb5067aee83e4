"""A stand-in for a stream: it attaches to groups, counts its wakes and waits for newer sets."""

from __future__ import annotations

import asyncio

from services.pilot.model.proxy import Proxy
from services.pilot.model.source import ResourceSource
from windward.xds.resource import ResourceSet


class Watched:
    def __init__(self, source: ResourceSource, proxy: Proxy) -> None:
        self.wakes = 0
        self._woken = asyncio.Event()
        self._view = source.attach(proxy, self._wake)

    def _wake(self) -> None:
        self.wakes += 1
        self._woken.set()

    @property
    def current(self) -> ResourceSet:
        return self._view.current

    async def changed(self, after_version: int) -> ResourceSet:
        """Wait for a set newer than a version."""
        while self.current.version <= after_version:
            self._woken.clear()
            await self._woken.wait()
        return self.current

    def detach(self) -> None:
        self._view.detach()
