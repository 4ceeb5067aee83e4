"""What delta and state-of-the-world streams have in common: order, withholding, answers, and what is known.

request / update -> queues of names (TypeState.todo) -> next() -> one response, or None
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final

from windward.slices import Work, at_once
from windward.xds.bodies import Build
from windward.xds.envelope import nonce_field
from windward.xds.knowledge import ABSENT, Have, Refusal, Sent, TypeState
from windward.xds.resource import (
    CLUSTER,
    ENDPOINT,
    LISTENER,
    PUSH_ORDER,
    ROUTE,
    Resource,
    ResourceSet,
)
from windward.xds.subscription import Subscription

MOST_TYPES: Final = 32
"""Types that a stream may ask for; what it asks for beyond is answered with silence, as unknown types are."""
LONGEST_ERROR: Final = 2000

HeldKey = tuple[str, str, str]
"""(type URL, name, version) of a resource that is withheld from everybody who does not have it."""

REFERRED: Final[Mapping[str, tuple[str, ...]]] = {LISTENER: (ROUTE, CLUSTER), ROUTE: (CLUSTER,)}
"""Type -> the types that the names in ``Resource.refers`` may be of; acyclic, so that looking into them ends."""
LAST_TO_GO: Final[Mapping[str, tuple[str, ...]]] = {
    CLUSTER: (LISTENER, ROUTE),
    ENDPOINT: (LISTENER, ROUTE),
    ROUTE: (LISTENER,),
}
"""Type -> the types that must be at rest, and must not refer to a name, before it is removed."""


class Stream(ABC):
    """One client. Subclasses know one protocol each; neither does any I/O."""

    build: Build

    def __init__(self, current: ResourceSet) -> None:
        self.current = current
        self.types: dict[str, TypeState] = {}
        self.expired = 0
        """Answers to responses that are not waited for."""
        self.held: Mapping[HeldKey, object] = {}
        self.sent_type = ""
        """The type of the response that was made last."""
        self._order: tuple[TypeState, ...] = ()
        self._nonce = 0
        self._rest = True

    # ---- what comes in ------------------------------------------------------------------------------------------------

    def request(self, request: Any, at: float = 0.0) -> tuple[Refusal, ...]:
        """Take a request in, at a time of the caller's clock. Returns the resources that it proves to be bad."""
        return at_once(self.taking(request, at))

    @abstractmethod
    def taking(self, request: Any, at: float = 0.0) -> Work[tuple[Refusal, ...]]:
        """``request`` in steps, for one that names thousands. Nothing may be asked of the stream before the last one."""

    def update(self, resources: ResourceSet, held: Mapping[HeldKey, object] | None = None) -> None:
        """A newer set is in force; versions never go back. ``held`` replaces what is withheld from everybody who lacks it.

        A set of the same version may have a newer revision, or be of another scope.
        """
        touched = False
        if held is not None:
            touched = held is not self.held and bool(held or self.held)
            self.held = held
        before = self.current
        if resources.version >= before.version and resources is not before:
            touched |= self._follow(before, resources)
        if touched:
            self._rest = False
        current = self.current
        for state in self._order:
            if not state.busy:
                state.follows(current)
            elif touched and (overlay := state.overlay):
                if state.again or state.todo != list(overlay):
                    state.reconsider()

    def _follow(self, before: ResourceSet, after: ResourceSet) -> bool:
        """Compare what may differ. Whether anything that the client wants does."""
        # Of one version there is a second set when a group moves to another scope: nothing tells how they differ.
        changed: Mapping[str, AbstractSet[str]] | None = None
        if after.version > before.version:
            changed = after.changed_since(before.version)
        if changed is None:
            changed = {
                url: before.names(url) | after.names(url)
                for url in self.types
                if not after.shares(before, url)
            }
        touched = False
        for url, names in changed.items():
            state = self.types.get(url)
            if state is not None and names and state.advance(before, after, names):
                touched = True
        self.current = after
        return touched

    def open(self, type_url: str) -> TypeState | None:
        """The state of a type that the client asks for the first time; None for one too many."""
        if len(self.types) >= MOST_TYPES:
            return None
        state = self.types[type_url] = TypeState(Subscription(type_url))
        known = [self.types[url] for url in PUSH_ORDER if url in self.types]
        others = sorted(url for url in self.types if url not in PUSH_ORDER)
        self._order = (*known, *(self.types[url] for url in others))
        return state

    def answer(self, state: TypeState, nonce: str, error: str, at: float) -> tuple[Refusal, ...]:
        """An ACK, or a NACK: of the response with this nonce; of none that is known, nothing. The resources found bad."""
        sent = state.pending.pop(nonce, None)
        if sent is None:
            self.expired += 1
            return ()
        found: tuple[Refusal, ...] = ()
        if error:
            state.last_error = error[:LONGEST_ERROR]
            state.rejects += 1
            for resource in sent.resources:
                state.roll_back(resource, sent.had(resource.name))
            found = self.refuse(state, sent, at)
            state.reconsider()
        else:
            self.accept(state, sent)
        self._unblock()
        return found

    def accept(self, state: TypeState, sent: Sent) -> None:
        if state.refused:
            for resource in sent.resources:
                state.refused.pop(resource.name, None)
        if not state.refused:
            state.last_error = ""
        if not state.pending:
            state.acked_revision = max(state.acked_revision, sent.revision)
            state.acked_version = max(state.acked_version, sent.version)

    @abstractmethod
    def refuse(self, state: TypeState, sent: Sent, at: float) -> tuple[Refusal, ...]:
        """What follows from a NACK, after ``roll_back``. The resources that it proves to be bad."""

    def blame(
        self, state: TypeState, resources: Iterable[Resource], sent: Sent, at: float
    ) -> tuple[Refusal, ...]:
        """These are bad, each of them: hold what the client has in their place."""
        found = []
        for item in resources:
            refusal = Refusal(
                item.type_url, item.name, item.version, state.last_error, sent.revision, at
            )
            state.refused[item.name] = refusal
            state.split.discard(item.name)
            found.append(refusal)
        return tuple(found)

    def _unblock(self) -> None:
        """After an answer: what was withheld because of another resource may be due now."""
        for url in (LISTENER, ROUTE):
            state = self.types.get(url)
            if state is not None and state.overlay and not state.todo:
                state.reconsider()

    # ---- what goes out ------------------------------------------------------------------------------------------------

    def take(self) -> list[bytes]:
        """Every response that may go now."""
        return list(iter(self.next, None))

    @property
    def may_say_more(self) -> bool:
        """Whether ``next`` could have another response without hearing anything before; when not, it need not be asked."""
        for state in self._order:  # noqa: SIM110  asked after every response, and a generator costs three times as much
            if state.busy and (state.todo or state.overlay or state.trials or not state.answered):
                return True
        return False

    def next(self) -> bytes | None:
        """The next response that may go now, made of the newest state; None when it is the client's turn, or nobody's."""
        if self._rest:
            return None
        for state in self._order:
            if not state.busy:
                continue
            waits = state.todo or state.trials or not state.answered
            if waits and not self._blocked(state):
                response = self.addition(state)
                if response is not None:
                    return response
        for state in reversed(self._order):
            if state.busy and state.overlay:
                response = self.removal(state)
                if response is not None:
                    return response
        for state in self._order:
            if state.busy:
                state.at_rest(self.current)
        self._rest = True
        return None

    @property
    def version_told(self) -> str:
        """The version that a response of the set in force carries."""
        return self.current.told

    @abstractmethod
    def addition(self, state: TypeState) -> bytes | None:
        """The next response with what the client does not have; ``state.answered`` is true after it."""

    @abstractmethod
    def removal(self, state: TypeState) -> bytes | None:
        """The next response that takes away what the client should not have."""

    def send(
        self,
        state: TypeState,
        content: tuple[Resource, ...],
        news: tuple[Resource, ...] | None,
        removed: tuple[str, ...],
        *,
        single: bool = False,
    ) -> bytes:
        """Note a response as sent. ``news`` is what of its content the client does not have; None: all of it."""
        current, url = self.current, state.type_url
        body, shared = current.bodies.body(self.build, url, content, removed, self.version_told)
        news = shared if news is None else news
        before: dict[str, Have] = {}
        overlay = state.overlay
        for resource in news:
            have = overlay.pop(resource.name, resource)
            if have:  # not ABSENT
                before[resource.name] = have
            state.again.discard(resource.name)
        for name in removed:
            have = overlay.pop(name, ABSENT)
            if have:
                before[name] = have
            state.again.discard(name)
        self._nonce += 1
        nonce = f"{state.tag}-{current.version}-{self._nonce}"
        state.pending[nonce] = Sent(
            news, before, removed, current.version, current.revision, single
        )
        state.last_nonce = nonce
        state.busy = True
        self.sent_type = url
        state.sent_revision = current.revision
        if url == CLUSTER:
            self.warm(news)
        return body + nonce_field(nonce)

    def warm(self, clusters: Iterable[Resource]) -> None:
        """These clusters are being sent: Envoy warms a changed cluster until its endpoints come again, even unchanged ones.

        Without them it waits for ``initial_fetch_timeout`` (15 s) and holds back the ACK of CDS meanwhile.
        Source: Envoy "Cluster warming"; xDS protocol "Resource warming".
        """
        state = self.types.get(ENDPOINT)
        if state is None:
            return
        names = [
            item.name
            for item in clusters
            if state.subscription.wants(item.name) and self.current.get(ENDPOINT, item.name)
        ]
        if names:
            state.again.update(names)
            state.queue(names)

    # ---- what may go --------------------------------------------------------------------------------------------------

    def examine(self, state: TypeState, name: str) -> Resource | None:
        """The resource if it should go to the client now; forgets a difference that is none any more."""
        now = self.current.get(state.type_url, name)
        if now is None:
            state.refused.pop(name, None)
            state.split.discard(name)
            if state.overlay.get(name) == ABSENT:
                del state.overlay[name]
            return None
        if (
            name not in state.again and name not in state.refused
        ):  # after a refusal, what is good is said again
            have = state.overlay.get(name, now)
            if have is now or (have if isinstance(have, str) else have.version) == now.version:
                state.synced(name)
                return None
        if (state.refused or self.held or now.refers) and self._barred(state, now):
            state.again.discard(name)
            return None
        return now

    def _blocked(self, state: TypeState) -> bool:
        """Make before break: listeners and routes wait for clusters and endpoints; the rest waits for nobody."""
        return state.type_url in REFERRED and not (
            self._settled(CLUSTER) and self._settled(ENDPOINT)
        )

    def _settled(self, type_url: str) -> bool:
        state = self.types.get(type_url)
        return state is None or state.settled

    def _barred(self, state: TypeState | None, resource: Resource) -> bool:
        """Whether this very version must not go to this client: refused, held for all, or it refers to what is withheld."""
        if state is not None and state.refused:
            refusal = state.refused.get(resource.name)
            if refusal is not None and refusal.version == resource.version:
                return True
        if self.held and (resource.type_url, resource.name, resource.version) in self.held:
            return True
        return bool(resource.refers) and any(
            self._withheld(url, name)
            for url in REFERRED.get(resource.type_url, ())
            for name in resource.refers
        )

    def _withheld(self, type_url: str, name: str) -> bool:
        """Whether a resource exists, but neither it nor an earlier version of it is for this client."""
        now = self.current.get(type_url, name)
        if now is None:
            return False
        state = self.types.get(type_url)
        if (
            state is not None
            and state.subscription.wants(name)
            and state.overlay.get(name) != ABSENT
        ):
            return False
        return self._barred(state, now)

    def named_by_others(self, type_url: str) -> AbstractSet[str] | None:
        """What must not be removed yet, because something that the client has or is about to have refers to it.

        None while nothing of the type may go.
        """
        staying: set[str] = set()
        for url in LAST_TO_GO.get(type_url, ()):
            state = self.types.get(url)
            if state is None:
                continue
            if not state.settled or state.todo:
                return None
            for have in state.overlay.values():
                if have == ABSENT:
                    continue
                if isinstance(have, str):
                    return None  # A version that the client brought along says nothing of what it refers to.
                staying |= have.refers
        return staying

    @property
    def settled(self) -> bool:
        """The client has asked for something, and has answered all that it was sent."""
        return bool(self._order) and all(state.settled for state in self._order)

    # ---- what is known ------------------------------------------------------------------------------------------------

    def accepted(self, type_url: str, name: str) -> str:
        """The version that the client accepted last; empty for none."""
        state = self.types.get(type_url)
        if state is None or not state.subscription.wants(name):
            return ABSENT
        now = self.current.get(type_url, name)
        have = state.overlay.get(name, now or ABSENT)
        for sent in state.pending.values():
            if sent.holds(name) or name in sent.removed:
                have = sent.had(name)
                break
        return have if isinstance(have, str) else have.version

    def wanted(self, type_url: str) -> list[str]:
        """Names of what exists and the client wants."""
        state = self.types.get(type_url)
        if state is None:
            return []
        names = self.current.names(type_url)
        if state.subscription.wildcard:
            return sorted(names)
        return sorted(names & state.subscription.names)

    def count(self, type_url: str) -> int:
        """How many resources the client was sent and still has."""
        state = self.types[type_url]
        names = self.current.names(type_url)
        if not state.subscription.wildcard:
            names = names & state.subscription.names
        other = sum((have != ABSENT) - (name in names) for name, have in state.overlay.items())
        return len(names) + other
