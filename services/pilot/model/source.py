"""What streams ask of the engine: the resources of a proxy's group, and word when they change."""

from __future__ import annotations

from typing import Protocol

from services.pilot.model.proxy import Proxy
from windward.xds.resource import ResourceSet


class GroupView(Protocol):
    @property
    def current(self) -> ResourceSet: ...

    async def changed(self, after_version: int) -> ResourceSet:
        """Wait for a set newer than a version."""

    def detach(self) -> None: ...


class ResourceSource(Protocol):
    def attach(self, proxy: Proxy) -> GroupView:
        """The view of the proxy's group; built at once if it is the first of its group."""
