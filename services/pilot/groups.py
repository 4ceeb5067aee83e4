"""Proxy groups: proxies that must get the same resources share one set, built once a snapshot.

The key holds everything that the output depends on, the identity among it, so nothing of one identity can reach another
by way of a shared set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from services.pilot.envoy.generate import Generator, Options
from services.pilot.envoy.memo import Memo
from services.pilot.model.proxy import Proxy
from services.pilot.snapshot import MeshSnapshot
from windward.xds.resource import ResourceSet


def group_key(proxy: Proxy) -> Hashable:
    """Everything of a proxy but its own name."""
    return (
        proxy.type,
        proxy.namespace,
        proxy.service_account,
        proxy.address,
        proxy.labels,
        proxy.interception,
        proxy.app_address,
        proxy.identity,
    )


class Group:
    def __init__(self, proxy: Proxy, current: ResourceSet) -> None:
        self.proxy = proxy
        self.current = current
        self.wakes: dict[View, Callable[[], None]] = {}

    def replace(self, resources: ResourceSet) -> None:
        self.current = resources
        for wake in list(self.wakes.values()):
            wake()


class View:
    """One stream's hold on its group."""

    def __init__(self, groups: Groups, key: Hashable, group: Group) -> None:
        self._groups = groups
        self._key = key
        self._group: Group | None = group

    @property
    def current(self) -> ResourceSet:
        assert self._group is not None
        return self._group.current

    def detach(self) -> None:
        if self._group is not None:
            self._groups.release(self._key, self)
            self._group = None


class Groups:
    """See services.pilot.model.source.ResourceSource. One owner publishes; streams read."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._memo = Memo()
        self._groups: dict[Hashable, Group] = {}
        self.snapshot = MeshSnapshot()

    def attach(self, proxy: Proxy, wake: Callable[[], None]) -> View:
        key = group_key(proxy)
        group = self._groups.get(key)
        if group is None:
            group = Group(proxy, self._build(proxy))
            self._groups[key] = group
        view = View(self, key, group)
        group.wakes[view] = wake
        return view

    def release(self, key: Hashable, view: View) -> None:
        group = self._groups[key]
        del group.wakes[view]
        if not group.wakes:
            del self._groups[key]

    async def publish(self, snapshot: MeshSnapshot) -> None:
        """Put a snapshot in force, one group at a time, letting streams run between two."""
        self.snapshot = snapshot
        for group in list(self._groups.values()):
            group.replace(self._build(group.proxy))
            await asyncio.sleep(0)
        self._memo.sweep()

    def _build(self, proxy: Proxy) -> ResourceSet:
        made = Generator(self.snapshot, proxy, self._options, self._memo).generate()
        return ResourceSet.of(self.snapshot.version, self.snapshot.revision, made)
