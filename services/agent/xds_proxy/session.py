"""One delta stream of Envoy's, and whichever stream to a Pilot stands behind it. Pure.

    Envoy subscribes -> answered from the cache at once, as far as that holds it; and passed up
    Pilot's response -> Envoy, under a nonce of our own -> its ACK fills the cache and goes up under Pilot's nonce
    a new Pilot      -> one first request a type with the versions in the cache: an up-to-date Envoy is sent nothing
    a new Envoy      -> a new session over the same cache
    name tables      -> asked for beside Envoy's types, never passed to it, ACKed here

A late answer to a Pilot that is gone fills the cache and goes nowhere. A cached response that Envoy refuses is given again
one by one, so that the bad resource alone is dropped. Source: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol
"Incremental xDS"; resources are opaque (wire.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from services.agent.xds_proxy.cache import Cache, Held
from services.agent.xds_proxy.wire import (
    Request,
    Response,
    body_of,
    read_response,
    status,
    with_nonce,
    write_request,
    write_response,
)
from windward.xds.resource import NAME_TABLE

WILDCARD = "*"
UNKNOWN_VERSION = "?"
"""Of a resource that Envoy has and we have not: Pilot sends it again, or says that it is gone."""

NameSink = Callable[[Mapping[str, bytes], Iterable[str]], None]
"""Takes name tables, host -> serialised table, and the hosts that are gone. Raises ValueError for what it cannot read."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A response that Envoy has not answered yet."""

    nonce: str
    """Pilot's; empty when it is from the cache or when that Pilot is gone."""
    brought: Mapping[str, Held]
    removed: tuple[str, ...] = ()
    cached: bool = False


@dataclass(slots=True)
class _Type:
    wanted: set[str] = field(default_factory=set)
    """Names, ``*`` for all."""
    legacy: bool = False
    """``*`` is meant because nothing was named."""
    foreign: set[str] = field(default_factory=set)
    """What Envoy had before, of a type of which the cache knows nothing."""
    waiting: dict[str, Offer] = field(default_factory=dict)
    """Our nonce -> what Envoy has not answered yet, oldest first."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one message leads to: messages for Envoy, for Pilot, and whether Pilot's stream is to be opened again."""

    down: tuple[bytes, ...] = ()
    up: tuple[bytes, ...] = ()
    reopen: bool = False
    moved: int = 0
    """Resources that Pilot has sent or removed."""


class Session:
    def __init__(self, cache: Cache, names: NameSink | None = None) -> None:
        self._cache = cache
        self._names = names
        self._types: dict[str, _Type] = {}
        self._node = b""
        self._nonce = 0
        self._attached = False

    def from_envoy(self, request: Request) -> Turn:
        if request.node is not None:
            self._node = request.node
        url = request.type_url
        if url == NAME_TABLE:
            return Turn()  # ours, not Envoy's
        state = self._types.get(url)
        first = state is None
        if state is None:
            state = self._types[url] = _Type()
        down, nonce, reopen = (
            self._answer(url, state, request) if request.nonce else ([], "", False)
        )
        fresh = self._subscribe(url, state, request, first=first)
        if fresh or first:
            down += self._from_cache(url, state, fresh, request.initial_versions)
        if not self._attached:
            return Turn(tuple(down))
        if first:
            return Turn(tuple(down), (write_request(self._first_request(url, state)),), reopen)
        if not (nonce or request.subscribe or request.unsubscribe):
            return Turn(tuple(down), (), reopen)
        passed = Request(
            url,
            request.subscribe,
            request.unsubscribe,
            nonce=nonce,
            error=request.error if nonce else None,
        )
        return Turn(tuple(down), (write_request(passed),), reopen)

    def from_pilot(self, raw: bytes) -> Turn:
        """Raises WireError for what is not a response."""
        response = read_response(raw)
        self._cache.saw(response.version)
        moved = len(response.items) + len(response.removed)
        if response.type_url == NAME_TABLE:
            return Turn(up=(self._take_names(response),), moved=moved)
        state = self._types.get(response.type_url)
        if state is None:
            return Turn(moved=moved)
        brought = {item.name: Held(item.version, item.entry) for item in response.items}
        nonce = self._next_nonce()
        state.waiting[nonce] = Offer(response.nonce, brought, response.removed)
        return Turn((with_nonce(raw, nonce),), moved=moved)

    def open_upstream(self) -> list[bytes]:
        """First requests for a new Pilot: the node in the first of them, name tables last."""
        self.lose_upstream()
        self._attached = True
        requests = [self._first_request(url, state) for url, state in self._types.items()]
        if self._names is not None:
            held = self._cache.of(NAME_TABLE).resources
            versions = {name: item.version for name, item in held.items()}
            requests.append(Request(NAME_TABLE, (WILDCARD,), initial_versions=versions))
        return [
            write_request(request if index else replace(request, node=self._node))
            for index, request in enumerate(requests)
        ]

    def lose_upstream(self) -> None:
        """The Pilot is gone: answers to it have nowhere to go."""
        self._attached = False
        for state in self._types.values():
            for nonce, offer in state.waiting.items():
                state.waiting[nonce] = replace(offer, nonce="")

    def prune(self) -> None:
        """Drop from the cache what an earlier Envoy wanted and this one does not. For a session that has settled."""
        for url, state in self._types.items():
            if WILDCARD not in state.wanted:
                known = self._cache.of(url)
                self._cache.forget(url, (known.resources.keys() | known.missing) - state.wanted)

    # ---- Envoy's side -----------------------------------------------------------------------------------------------

    def _answer(self, url: str, state: _Type, request: Request) -> tuple[list[bytes], str, bool]:
        """An ACK or a NACK: what to say to Envoy, the nonce to pass up, whether Pilot must tell all again."""
        offer = state.waiting.pop(request.nonce, None)
        if offer is None:
            return [], "", False
        if request.error is None:
            wanted = {
                name: held for name, held in offer.brought.items() if self._wants(state, name)
            }
            missing = set(offer.removed) & state.wanted
            self._cache.accept(url, wanted, offer.removed, missing)
            state.foreign -= offer.brought.keys() | set(offer.removed)
            return [], offer.nonce, False
        if not offer.cached:
            return [], offer.nonce, False
        if len(offer.brought) > 1:
            return [self._offer(url, state, {n: h}) for n, h in offer.brought.items()], "", False
        self._cache.forget(url, offer.brought)
        return [], "", True

    def _subscribe(self, url: str, state: _Type, request: Request, *, first: bool) -> set[str]:
        """Take in what is wanted; the names (or ``*``) that Envoy must now be answered about."""
        before = set(state.wanted)
        if first and not request.subscribe:
            state.wanted.add(WILDCARD)
            state.legacy = True
        elif request.subscribe and state.legacy:
            state.legacy = False
            state.wanted.discard(WILDCARD)
        state.wanted.update(request.subscribe)
        gone = set(request.unsubscribe) - set(request.subscribe)
        state.wanted -= gone
        if gone and WILDCARD not in state.wanted:
            known = self._cache.of(url)
            dropped = known.resources.keys() - state.wanted if WILDCARD in gone else gone
            self._cache.forget(url, dropped)
        # Asked again, it must be answered again: by Pilot, while there is one.
        again = set() if self._attached else set(request.subscribe)
        return (state.wanted - before) | again

    def _from_cache(
        self, url: str, state: _Type, fresh: set[str], has: Mapping[str, str]
    ) -> list[bytes]:
        known = self._cache.of(url)
        everything = WILDCARD in fresh
        if everything and not known.answered:
            state.foreign |= has.keys()
            return []
        names = known.resources.keys() if everything else fresh & known.resources.keys()
        brought = {
            name: self._newest(state, name, known.resources[name])
            for name in sorted(names)
            if has.get(name) != known.resources[name].version
        }
        gone = has.keys() - known.resources.keys() if everything else fresh & known.missing
        if not brought and not gone and (has or not everything):
            return []
        return [self._offer(url, state, brought, tuple(sorted(gone)))]

    def _newest(self, state: _Type, name: str, held: Held) -> Held:
        """What Envoy was given last, accepted yet or not: it never goes back."""
        for offer in state.waiting.values():
            held = offer.brought.get(name, held)
        return held

    def _offer(
        self, url: str, state: _Type, brought: Mapping[str, Held], removed: tuple[str, ...] = ()
    ) -> bytes:
        nonce = self._next_nonce()
        state.waiting[nonce] = Offer("", brought, removed, cached=True)
        entries = [held.entry for held in brought.values()]
        return write_response(url, entries, removed, self._cache.revision, nonce)

    def _next_nonce(self) -> str:
        self._nonce += 1
        return str(self._nonce)

    def _wants(self, state: _Type, name: str) -> bool:
        return WILDCARD in state.wanted or name in state.wanted

    # ---- Pilot's side -----------------------------------------------------------------------------------------------

    def _first_request(self, url: str, state: _Type) -> Request:
        known = self._cache.of(url).resources
        versions = {name: held.version for name, held in known.items() if self._wants(state, name)}
        versions |= dict.fromkeys(sorted(state.foreign - known.keys()), UNKNOWN_VERSION)
        subscribe = () if state.legacy else tuple(sorted(state.wanted))
        return Request(url, subscribe, initial_versions=versions)

    def _take_names(self, response: Response) -> bytes:
        """Hand the names over; the ACK, or the NACK of what could not be read."""
        brought = {item.name: Held(item.version, item.entry) for item in response.items}
        error = None
        try:
            if self._names is not None:
                upserts = {name: body_of(held.entry) for name, held in brought.items()}
                self._names(upserts, response.removed)
        except ValueError as refused:
            error = status(str(refused))
        else:
            self._cache.accept(NAME_TABLE, brought, response.removed, set())
        return write_request(Request(NAME_TABLE, nonce=response.nonce, error=error))
