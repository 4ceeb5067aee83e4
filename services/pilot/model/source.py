"""What streams ask of the engine: the resources of a proxy's group, and word when they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from services.pilot.model.proxy import Proxy
from windward.xds.resource import ResourceSet


class GroupView(Protocol):
    @property
    def current(self) -> ResourceSet: ...

    def detach(self) -> None:
        """No wake comes after this."""


class ResourceSource(Protocol):
    async def attach(self, proxy: Proxy, wake: Callable[[], None]) -> GroupView:
        """The view of the proxy's group; built, in slices, if it is the first of its group.

        ``wake`` is called on the loop after ``current`` was replaced. The source paces the wakes of many streams, so that
        the loop is never held; between two wakes of a stream ``current`` may have been replaced more than once.
        """
