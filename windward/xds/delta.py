"""Incremental xDS: chunks of what changed, each with a nonce of its own, several under way at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from windward.slices import Work
from windward.xds.core import Stream
from windward.xds.envelope import delta_body
from windward.xds.knowledge import ABSENT, Refusal, Sent, TypeState, blocks
from windward.xds.resource import LISTENER, Resource
from windward.xds.subscription import WILDCARD

CHUNK: Final = 50
"""Resources in a response that changes something which the client has: so many stay as they were when one of them is bad."""
NEW_CHUNK: Final = 200
"""Resources in a response of which the client has none: it loses nothing by a refusal, and a first sync is shorter."""
CHUNK_BYTES: Final = 1024 * 1024
"""A response that is longer holds a single resource, or a new proxy's listeners."""
MOST_PENDING: Final = 100
"""Responses of one type that may wait for an answer: a client that never answers costs this much and no more."""
MOST_REMOVED: Final = 1000
"""Names of absent or removed resources in one response."""


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    type_url: str
    nonce: str = ""
    error: str = ""
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """Whether it names anything to have."""
        return bool(self.subscribe)


class DeltaStream(Stream):
    """Incremental xDS."""

    build = staticmethod(delta_body)

    def taking(self, request: DeltaRequest, at: float = 0.0) -> Work[tuple[Refusal, ...]]:
        state = self.types.get(request.type_url)
        found: tuple[Refusal, ...] = ()
        if state is not None:
            if request.nonce:
                found = self.answer(state, request.nonce, request.error, at)
            if request.subscribe or request.unsubscribe or not request.nonce:
                yield from self._subscribe(state, request, {})
        else:
            state = self.open(request.type_url)
            if state is not None:
                yield from self._subscribe(state, request, request.initial_versions)
        self._rest = False
        return found

    def _subscribe(
        self, state: TypeState, request: DeltaRequest, brought: Mapping[str, str]
    ) -> Work[None]:
        subscription, had_all = state.subscription, state.subscription.wildcard
        if request.unsubscribe:
            yield from self._unsubscribe(state, request.unsubscribe)
        has_all = subscription.wildcard
        for block in blocks(request.subscribe):
            self._name(state, block, brought, has_all=has_all)
            yield
        if subscription.wildcard and not has_all:
            unknown = self.current.names(state.type_url) - subscription.names
            state.overlay.update(dict.fromkeys(unknown, ABSENT))
        elif had_all and not subscription.wildcard:
            for block in blocks(list(state.overlay)):
                yield
                for name in block:
                    if not subscription.wants(name):
                        state.forget(name)
        gone: set[str] = set()
        for block in blocks(list(brought)):
            yield
            gone.update(self._bring(state, block, brought))
        yield from state.reconsidering(gone)
        if not request.nonce:
            state.answered = False

    def _unsubscribe(self, state: TypeState, names: Sequence[str]) -> Work[None]:
        subscription, dropped = state.subscription, list[str]()
        for block in blocks(names):
            dropped += [name for name in block if name in subscription.names]
            subscription.unsubscribe(block)
            yield
        wildcard = subscription.wildcard
        for block in blocks(dropped if wildcard else names):
            if wildcard:
                self._named_no_longer(state, block)
            else:
                for name in block:
                    state.forget(name)
            yield

    def _name(
        self,
        state: TypeState,
        names: Sequence[str],
        brought: Mapping[str, str],
        *,
        has_all: bool,
    ) -> None:
        """The client asks for these. ``has_all``: before the request it had everything."""
        url, subscription, current = state.type_url, state.subscription, self.current
        asked = []
        for name in names:
            if name == WILDCARD:
                continue
            found = current.get(url, name)
            # The resource's own name, so that a thousand streams do not keep a thousand copies of each.
            kept = found.name if found else name
            asked.append(kept)
            if kept not in brought:
                state.again.add(kept)
                # What does not exist is no difference, unless an answer that is due may make it one.
                differs = found or state.pending or kept in state.overlay
                if differs and not has_all and kept not in subscription.names:
                    state.overlay[kept] = ABSENT
        subscription.subscribe(names if len(asked) < len(names) else asked)

    def _bring(
        self, state: TypeState, names: Iterable[str], brought: Mapping[str, str]
    ) -> Iterator[str]:
        """The client has versions of these: no difference where it is the one in force. Those that do not exist."""
        for name in names:
            if not state.subscription.wants(name):
                continue
            found, version = self.current.get(state.type_url, name), brought[name]
            if found is not None and found.version == version:
                state.overlay.pop(name, None)
                continue
            state.overlay[name] = version
            if found is None and version != ABSENT:
                yield name

    def _named_no_longer(self, state: TypeState, names: Iterable[str]) -> None:
        """A client that wants everything drops what it had named as well, and is told again what there is of it.

        Source: xDS protocol, "Unsubscribing From Resources"; what does not exist it need not be told of any more.
        """
        for name in names:
            if self.current.get(state.type_url, name) is not None:
                state.again.add(name)
            else:
                state.again.discard(name)

    def refuse(self, state: TypeState, sent: Sent, at: float) -> tuple[Refusal, ...]:
        """A single resource is found bad; what is in a chunk goes again as singles, so that the nonce says which one is."""
        if sent.single or len(sent.resources) <= 1:
            return self.blame(state, sent.resources, sent, at)
        state.split.update(resource.name for resource in sent.resources)
        return ()

    def addition(self, state: TypeState) -> bytes | None:
        if len(state.pending) >= MOST_PENDING:
            return None
        first, state.answered = not state.answered, True
        whole = first and state.type_url == LISTENER
        chosen: list[Resource] = []
        missing: list[str] = []
        todo, limit, size = state.todo, NEW_CHUNK, 0
        while todo and len(missing) < MOST_REMOVED and (whole or len(chosen) < limit):
            name = todo.pop()
            resource = self.examine(state, name)
            if resource is None:
                if self._is_missing(state, name):
                    missing.append(name)
            elif name not in state.split:
                if state.overlay.get(name, resource):  # not ABSENT
                    limit = CHUNK
                size += resource.size
                if chosen and not whole and (len(chosen) >= limit or size > CHUNK_BYTES):
                    todo.append(name)
                    break
                chosen.append(resource)
            elif chosen or missing:
                todo.append(name)
                break
            else:
                state.split.discard(name)
                return self.send(state, (resource,), None, (), single=True)
        if chosen or missing:
            return self.send(state, tuple(chosen), None, tuple(missing))
        if first and state.subscription.wildcard and not self.count(state.type_url):
            return self.send(state, (), None, ())
        return None

    def _is_missing(self, state: TypeState, name: str) -> bool:
        """A named resource that does not exist: said once, so that the client need not wait for it."""
        if name not in state.again or self.current.get(state.type_url, name) is not None:
            return False
        if name in state.overlay:
            return False  # its removal is due; if it exists again before that, its cluster still waits for it
        state.again.discard(name)
        return True

    def removal(self, state: TypeState) -> bytes | None:
        """What the client has and should not, once nothing refers to it any more."""
        url = state.type_url
        if len(state.pending) >= MOST_PENDING:
            return None
        staying = self.named_by_others(url)
        if staying is None:
            return None
        gone = (
            name
            for name, have in state.overlay.items()
            if have != ABSENT and name not in staying and self.current.get(url, name) is None
        )
        some = sorted(islice(gone, MOST_REMOVED))
        return self.send(state, (), None, tuple(some)) if some else None
