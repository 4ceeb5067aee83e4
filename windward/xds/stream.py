"""One ADS stream's state, without any I/O: requests and new resource sets in, responses out.

    DeltaStream / SotwStream:  request(...) -> None,  update(ResourceSet) -> None,  take() -> list[bytes]

Rules, each a test:
- make before break: a type is sent when the types before it in PUSH_ORDER have nothing unacknowledged that was added;
  removals go last, in reverse order;
- a new proxy's first LDS comes in one response, after every CDS chunk is ACKed;
- delta responses go in chunks; a chunk that is NACKed goes again as single resources, so that the nonce says which one
  is bad; that one is held at its last good version for this proxy until its bytes change;
- what was sent, and whether it was ACKed, is known for each resource.
Source: xDS protocol, "ACK/NACK and resource type instance version", "Eventual consistency considerations".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from windward.xds.envelope import delta_response, sotw_response
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

CHUNK = 50
EMPTY: Mapping[str, Resource] = {}


@dataclass(slots=True)
class Sent:
    """A response that waits for its ACK."""

    resources: dict[str, Resource]
    removed: tuple[str, ...]
    revision: int
    single: bool


@dataclass(slots=True)
class TypeState:
    """What one client has of one type."""

    subscription: Subscription
    known: dict[str, str] = field(default_factory=dict)
    """Name -> version that was sent last (or that the client brought along)."""
    good: dict[str, str] = field(default_factory=dict)
    """Name -> version that was ACKed last."""
    refused: dict[str, str] = field(default_factory=dict)
    """Name -> version that the client refused: not sent again while it stays the same."""
    pending: dict[str, Sent] = field(default_factory=dict)
    """Nonce -> response, in the order sent."""
    split: set[str] = field(default_factory=set)
    """Names of a refused chunk that still have to go one by one, as they are then."""
    held: dict[str, Resource] = field(default_factory=dict)
    """State of the world: what was sent last, for clusters that must stay a little longer."""
    behind: bool = False
    """Whether something of this type is due and waits for its turn."""
    sent_revision: int = 0
    acked_revision: int = 0
    last_error: str = ""
    answered: bool = False
    """Whether the first request was answered."""
    rejects: int = 0
    last_nonce: str = ""

    @property
    def state(self) -> str:
        if self.last_error or self.refused:
            return "ERROR"
        return "STALE" if self.pending or self.behind else "SYNCED"


class _Stream:
    """What delta and state-of-the-world have in common."""

    def __init__(self, current: ResourceSet) -> None:
        self.current = current
        self.types: dict[str, TypeState] = {}
        self._nonce = 0

    def update(self, resources: ResourceSet) -> None:
        """A newer set is in force; versions never go back."""
        if resources.version > self.current.version:
            self.current = resources

    def next_nonce(self, type_url: str) -> str:
        self._nonce += 1
        return f"{type_url.rsplit('.', 1)[-1][:3]}-{self.current.version}-{self._nonce}"

    def available(self, type_url: str) -> Mapping[str, Resource]:
        maps = [named for layer in self.current.layers if (named := layer.get(type_url))]
        if len(maps) < 2:
            return maps[0] if maps else EMPTY
        return {name: item for named in reversed(maps) for name, item in named.items()}

    def settled(self, type_url: str) -> bool:
        """Nothing of this type waits for an ACK."""
        state = self.types.get(type_url)
        return state is None or not state.pending

    def due(self, type_url: str) -> list[Resource]:
        """What the client wants, does not have as it is now, and has not refused as it is now."""
        state = self.types.get(type_url)
        if state is None:
            return []
        available = self.available(type_url)
        wildcard = state.subscription.wildcard
        names = available if wildcard else state.subscription.names & available.keys()
        return [
            available[name]
            for name in sorted(names)
            if state.known.get(name) != available[name].version
            and state.refused.get(name) != available[name].version
        ]

    def quiet(self, type_url: str) -> bool:
        """Nothing of this type waits for an ACK or for its turn: what it no longer refers to may go."""
        return self.settled(type_url) and not self.due(type_url)

    def account(self) -> None:
        """After sending: how far each type is; what no longer exists is no longer refused."""
        for type_url, state in self.types.items():
            available = self.available(type_url)
            for name in [name for name in state.refused if name not in available]:
                del state.refused[name]
            state.behind = bool(self.due(type_url)) or bool(state.split)
            for name in [n for n, v in state.refused.items() if self._back_to_good(type_url, n, v)]:
                del state.refused[name]
            if not state.pending and not state.behind:
                state.acked_revision = max(state.acked_revision, self.current.revision)
                if not state.refused:
                    state.last_error = ""

    def _back_to_good(self, type_url: str, name: str, refused: str) -> bool:
        """Whether what was refused has since gone back to what the client accepted before."""
        version = self.available(type_url)[name].version
        return version != refused and version == self.types[type_url].good.get(name)

    def warm(self, clusters: Iterable[str]) -> None:
        """These clusters are being sent: Envoy warms a changed cluster until its endpoints come again, even unchanged ones.

        Without them it waits for ``initial_fetch_timeout`` (15 s) and holds back the ACK of CDS meanwhile.
        Source: Envoy "Cluster warming"; xDS protocol "Resource warming".
        """
        endpoints = self.types.get(ENDPOINT)
        if endpoints is not None:
            for name in clusters:
                if endpoints.known.get(name):
                    del endpoints.known[name]

    def in_order(self) -> list[str]:
        known = [url for url in PUSH_ORDER if url in self.types]
        return known + sorted(url for url in self.types if url not in PUSH_ORDER)

    def blocked(self, type_url: str) -> bool:
        """Make before break: listeners wait for clusters and endpoints, routes for those; the rest waits for nobody."""
        if type_url == LISTENER:
            return not (self.settled(CLUSTER) and self.settled(ENDPOINT))
        if type_url == ROUTE:
            return not (self.settled(CLUSTER) and self.settled(ENDPOINT))
        return False


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    type_url: str
    nonce: str = ""
    error: str = ""
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)


class DeltaStream(_Stream):
    """Incremental xDS."""

    def request(self, request: DeltaRequest) -> None:
        state = self.types.get(request.type_url)
        if state is None:
            state = self.types[request.type_url] = TypeState(Subscription(request.type_url))
            state.known.update(request.initial_versions)
            state.good.update(request.initial_versions)
        if request.nonce:
            self._answer(state, request)
        if request.subscribe or request.unsubscribe or not request.nonce:
            state.subscription.unsubscribe(request.unsubscribe)
            for name in [name for name in state.known if not state.subscription.wants(name)]:
                if request.unsubscribe:
                    del state.known[name]
                    state.good.pop(name, None)
                    state.refused.pop(name, None)
            state.subscription.subscribe(request.subscribe)
            for name in request.subscribe:
                if name not in request.initial_versions:
                    state.known.pop(name, None)  # asked again: it must be answered again
            if not request.nonce:
                state.answered = False

    def _answer(self, state: TypeState, request: DeltaRequest) -> None:
        """An ACK, or a NACK: of the response with this nonce; of none that is known, nothing."""
        sent = state.pending.pop(request.nonce, None)
        if sent is None:
            return
        if not request.error:
            for name, resource in sent.resources.items():
                state.good[name] = resource.version
                state.refused.pop(name, None)
            if not state.refused:
                state.last_error = ""
            if not state.pending:
                state.acked_revision = max(state.acked_revision, sent.revision)
            return
        state.last_error = request.error[:2000]
        state.rejects += 1
        if sent.single or len(sent.resources) <= 1:
            for name, resource in sent.resources.items():
                state.refused[name] = resource.version
                if name in state.good:
                    state.known[name] = resource.version
            return
        state.split |= sent.resources.keys()

    def take(self) -> list[bytes]:
        """Every response that may go now."""
        out: list[bytes] = []
        for type_url in self.in_order():
            out += self._additions(type_url)
        for type_url in reversed(self.in_order()):
            out += self._removals(type_url)
        self.account()
        return out

    def _additions(self, type_url: str) -> list[bytes]:
        state = self.types[type_url]
        if self.blocked(type_url):
            return []
        singles = self._singles(type_url, state)
        due = self.due(type_url)
        first = not state.answered
        state.answered = True
        missing = self._missing(type_url, state) if first or state.subscription.names else ()
        if not due:
            if missing or (first and not state.known and state.subscription.wildcard):
                singles.append(self._send(type_url, state, [], missing, single=False))
            return singles
        size = len(due) if type_url == LISTENER and first else CHUNK
        chunks = [due[at : at + size] for at in range(0, len(due), size)]
        return singles + [
            self._send(type_url, state, chunk, missing if index == 0 else (), single=False)
            for index, chunk in enumerate(chunks)
        ]

    def _singles(self, type_url: str, state: TypeState) -> list[bytes]:
        """What a refused chunk held, one by one, as it is now: the nonce then says which one is bad."""
        available = self.available(type_url)
        again = [
            available[name]
            for name in sorted(state.split)
            if name in available
            and state.subscription.wants(name)
            and available[name].version not in {state.good.get(name), state.refused.get(name)}
        ]
        state.split.clear()
        return [self._send(type_url, state, [item], (), single=True) for item in again]

    def _missing(self, type_url: str, state: TypeState) -> tuple[str, ...]:
        """Named resources that do not exist: said once, so that the client need not wait for them."""
        available = self.available(type_url)
        gone = [
            n
            for n in sorted(state.subscription.names)
            if n not in available and n not in state.known
        ]
        for name in gone:
            state.known[name] = ""
        return tuple(gone)

    def _removals(self, type_url: str) -> list[bytes]:
        """What the client has and should not; clusters go once nothing refers to them any more."""
        state = self.types[type_url]
        available = self.available(type_url)
        gone = tuple(
            sorted(
                name
                for name, version in state.known.items()
                if version and name not in available and state.subscription.wants(name)
            )
        )
        if not gone or (
            type_url in {CLUSTER, ENDPOINT} and not (self.quiet(LISTENER) and self.quiet(ROUTE))
        ):
            return []
        for name in gone:
            state.known[name] = ""
            state.good.pop(name, None)
            if name not in state.subscription.names:
                del state.known[name]
        return [self._send(type_url, state, [], gone, single=False)]

    def _send(
        self,
        type_url: str,
        state: TypeState,
        resources: Iterable[Resource],
        removed: tuple[str, ...],
        *,
        single: bool,
    ) -> bytes:
        chosen = {resource.name: resource for resource in resources}
        nonce = self.next_nonce(type_url)
        state.pending[nonce] = Sent(chosen, removed, self.current.revision, single)
        state.sent_revision = self.current.revision
        for name, resource in chosen.items():
            state.known[name] = resource.version
        if type_url == CLUSTER:
            self.warm(chosen)
        return delta_response(type_url, chosen.values(), removed, str(self.current.version), nonce)


@dataclass(frozen=True, slots=True)
class SotwRequest:
    type_url: str
    names: tuple[str, ...] = ()
    nonce: str = ""
    error: str = ""


class SotwStream(_Stream):
    """State of the world. A refused response leaves the client where it was; what it refused is sent again when it changes."""

    def request(self, request: SotwRequest) -> None:
        state = self.types.get(request.type_url)
        if state is None:
            state = self.types[request.type_url] = TypeState(Subscription(request.type_url))
        elif request.nonce and request.nonce not in state.pending:
            if state.pending or request.nonce != state.last_nonce:
                return  # expired: an answer to a response that a newer one has overtaken
        sent = state.pending.pop(request.nonce, None)
        if sent is not None:
            self._answer(state, sent, request)
        wanted_before = (set(state.subscription.names), state.subscription.wildcard)
        state.subscription.replace(request.names)
        added = state.subscription.names - wanted_before[0]
        for name in added:
            state.known.pop(name, None)
        for name in wanted_before[0] - state.subscription.names:
            if not state.subscription.wildcard:
                state.known.pop(name, None)

    def _answer(self, state: TypeState, sent: Sent, request: SotwRequest) -> None:
        if request.error:
            state.last_error = request.error[:2000]
            state.rejects += 1
            for name, resource in sent.resources.items():
                state.refused[name] = resource.version
            return
        state.last_error = ""
        state.refused.clear()
        state.good.update({name: resource.version for name, resource in sent.resources.items()})
        state.acked_revision = max(state.acked_revision, sent.revision)

    def take(self) -> list[bytes]:
        out: list[bytes] = []
        for type_url in self.in_order():
            response = self._due(type_url)
            if response is not None:
                out.append(response)
        self.account()
        return out

    def _due(self, type_url: str) -> bytes | None:
        state = self.types[type_url]
        if state.pending or self.blocked(type_url):
            return None
        available = self.available(type_url)
        names = sorted(name for name in available if state.subscription.wants(name))
        whole = type_url in {CLUSTER, LISTENER}
        changed = self.due(type_url)
        gone = [name for name in state.known if name not in available]
        # A cluster that routes still name stays until they have changed: break only after make.
        if type_url == CLUSTER and gone and not (self.quiet(LISTENER) and self.quiet(ROUTE)):
            kept, gone = [state.held[name] for name in gone if name in state.held], []
        else:
            kept = []
        first = whole and not state.answered
        if not changed and not (whole and gone) and not first:
            return None
        state.answered = True
        chosen = [*(available[name] for name in names), *kept] if whole else changed
        for name in gone:
            del state.known[name]
            state.held.pop(name, None)
        state.known.update({resource.name: resource.version for resource in chosen})
        if type_url == CLUSTER:
            self.warm(resource.name for resource in changed)
            state.held = {resource.name: resource for resource in chosen}
        nonce = self.next_nonce(type_url)
        state.pending[nonce] = Sent(
            {resource.name: resource for resource in chosen},
            (),
            self.current.revision,
            single=False,
        )
        state.last_nonce = nonce
        state.sent_revision = self.current.revision
        return sotw_response(type_url, chosen, str(self.current.version), nonce)
