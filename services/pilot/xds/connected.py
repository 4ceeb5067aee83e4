"""The proxies that are connected to this Pilot, and what each has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from services.pilot.model.proxy import Proxy
from services.pilot.model.source import GroupView
from windward.identity.spiffe_id import SpiffeId
from windward.xds.knowledge import TypeState
from windward.xds.stream import DeltaStream, SotwStream


@dataclass(slots=True)
class Connected:
    proxy: Proxy
    stream: DeltaStream | SotwStream
    since: datetime
    view: GroupView

    def accepted(self, state: TypeState) -> int:
        """The store's revision up to which the proxy has accepted what it should have of a type.

        Most changes concern other proxies, and their streams are not woken: what they accepted holds at the newer revision.
        """
        now = self.view.current
        if state.state == "SYNCED" and self.stream.current.version == now.version:
            return max(state.acked_revision, now.revision)
        return state.acked_revision


class ConnectedProxies:
    def __init__(self) -> None:
        self._streams: dict[int, Connected] = {}
        self._of: Counter[SpiffeId] = Counter()
        self._next = 0

    def add(self, connected: Connected) -> int:
        self._next += 1
        self._streams[self._next] = connected
        if connected.proxy.identity is not None:
            self._of[connected.proxy.identity] += 1
        return self._next

    def remove(self, number: int) -> None:
        connected = self._streams.pop(number, None)
        identity = connected.proxy.identity if connected is not None else None
        if identity is not None:
            self._of[identity] -= 1
            if not self._of[identity]:
                del self._of[identity]

    def of(self, identity: SpiffeId) -> int:
        """How many streams an identity has here."""
        return self._of[identity]

    def __iter__(self) -> Iterator[Connected]:
        return iter(list(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)

    def find(self, text: str) -> list[Connected]:
        """By node id, or by a part that stands between its ``~`` or is a workload's name."""
        exact = [item for item in self if item.proxy.id == text]
        if exact:
            return exact
        return [
            item
            for item in self
            if text
            in {item.proxy.name, f"{item.proxy.name}.{item.proxy.namespace}", item.proxy.address}
        ]
