"""A stream's hold on its group, without a stream: tests wait for newer sets."""

from __future__ import annotations

import asyncio

from services.pilot.model.proxy import Proxy
from services.pilot.model.source import GroupView, ResourceSource
from windward.xds.resource import ResourceSet


class Watched:
    def __init__(self) -> None:
        self.wakes = 0
        self._woken = asyncio.Event()
        self._view: GroupView

    async def attach(self, source: ResourceSource, proxy: Proxy) -> Watched:
        self._view = await source.attach(proxy, self._wake)
        return self

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


async def watch(source: ResourceSource, proxy: Proxy) -> Watched:
    return await Watched().attach(source, proxy)
