"""State of the world: one response of a type under way; clusters and listeners always whole, other types what changed.

A refused response is bisected: its suspects are brought to the client in halves, while the other half stays at what the
client has, until each of them is known to be good or is the only one in a refused response. Envoy's text is never
asked: it is no stable format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from windward.slices import Work
from windward.xds.core import Stream
from windward.xds.envelope import sotw_body
from windward.xds.knowledge import ABSENT, Refusal, Sent, TypeState, blocks
from windward.xds.resource import CLUSTER, WILDCARD_TYPES, Resource, ResourceSet

MOST_ROUNDS: Final = 128
"""Refused trials in a row before all suspects that are left are held back: 10 bad ones of 1,000 take about 100."""


@dataclass(frozen=True, slots=True)
class SotwRequest:
    type_url: str
    names: tuple[str, ...] = ()
    nonce: str = ""
    error: str = ""

    @property
    def asks(self) -> bool:
        """Whether it names anything to have."""
        return bool(self.names)


class SotwStream(Stream):
    """State of the world."""

    build = staticmethod(sotw_body)

    def __init__(self, current: ResourceSet) -> None:
        super().__init__(current)
        self._unsure: set[str] = set()
        """Clusters of refused responses: the client may have taken some of those all the same, and then changes them back."""
        self._met: set[str] = set()
        """Types of which the client has accepted something; of others it may have what it had before it came here."""
        self._leftovers: set[str] = set()
        """Types of which it has refused all so far."""

    @property
    def version_told(self) -> str:
        """A client may take the same version for the same content, and time changes content too: the process's count is in it."""
        return f"{self.current.told}.{self.current.version}"

    def taking(self, request: SotwRequest, at: float = 0.0) -> Work[tuple[Refusal, ...]]:
        state = self.types.get(request.type_url)
        found: tuple[Refusal, ...] = ()
        if state is None:
            state = self.open(request.type_url)
            if state is None:
                return ()
        elif request.nonce in state.pending:
            found = self.answer(state, request.nonce, request.error, at)
        elif request.nonce and (state.pending or request.nonce != state.last_nonce):
            self.expired += 1
            return ()  # an answer to a response that a newer one has overtaken
        yield from self._subscribe(state, request.names)
        self._rest = False
        return found

    def _subscribe(self, state: TypeState, wanted: tuple[str, ...]) -> Work[None]:
        url, subscription, current = state.type_url, state.subscription, self.current
        had, had_all = subscription.names, subscription.wildcard
        if subscription.repeats(wanted):
            return  # as every ACK does
        named: list[str] = []
        for block in blocks(wanted):
            yield
            named += [found.name if (found := current.get(url, name)) else name for name in block]
        subscription.replace(named)
        yield
        has, has_all, there = subscription.names, subscription.wildcard, current.names(url)
        given_up, new = had - has, has - had
        if not has_all:
            for block in blocks(list(state.overlay if had_all else given_up)):
                yield
                for name in block:
                    if name not in has:
                        state.forget(name)
        state.again -= given_up - there
        # What does not exist is no difference, unless an answer that is due may make it one. A whole type answers for it
        # all the same, by leaving it out.
        known = new & there
        if len(known) < len(new) and url in WILDCARD_TYPES:
            state.answered = False
        if not had_all:
            unknown = (there - had) if has_all else (new if state.pending else known)
            state.overlay.update(dict.fromkeys(unknown, ABSENT))
        if new or (has_all and not had_all):
            state.again |= known
            yield from state.reconsidering()

    # ---- refusals -----------------------------------------------------------------------------------------------------

    def accept(self, state: TypeState, sent: Sent) -> None:
        super().accept(state, sent)
        self._met.add(state.type_url)
        self._leftovers.discard(state.type_url)
        if state.type_url == CLUSTER:
            self._unsure.clear()
        if not state.trials:
            state.rounds = 0

    def refuse(self, state: TypeState, sent: Sent, at: float) -> tuple[Refusal, ...]:
        suspects = sent.resources
        state.rounds += 1
        if state.type_url == CLUSTER:
            self._unsure.update(resource.name for resource in suspects)
        if suspects:
            if state.type_url not in self._met:
                self._leftovers.add(state.type_url)
            for name in sent.removed:  # not said yet: it was among the refused response's news
                if state.subscription.wants(name):
                    state.overlay[name] = sent.had(name)
        if len(suspects) <= 1 or state.rounds > MOST_ROUNDS:
            if not state.trials:
                state.rounds = 0
            return self.blame(state, suspects, sent, at)
        names = [resource.name for resource in suspects]
        half = len(names) // 2
        state.trials += [names[half:], names[:half]]
        return ()

    # ---- responses ----------------------------------------------------------------------------------------------------

    def addition(self, state: TypeState) -> bytes | None:
        if state.pending:
            return None
        first, state.answered = not state.answered, True
        news = self._news(state)
        whole = state.type_url in WILDCARD_TYPES
        # A whole type answers for names that do not exist by leaving them out; others cannot say it.
        absent = [name for name in state.again if not self.current.get(state.type_url, name)]
        state.again.difference_update(absent)
        if news or (whole and (first or absent or self._clears(state))):
            return self._respond(state, news)
        return None

    def _clears(self, state: TypeState) -> bool:
        """Whether a client that has refused all so far, and is brought nothing now, is to be told that what it had is gone.

        As long as something is withheld it keeps what it had: that may be the last good version.
        """
        if state.type_url not in self._leftovers or state.refused:
            return False
        self._leftovers.discard(state.type_url)
        return True

    def _news(self, state: TypeState) -> tuple[Resource, ...]:
        """What to bring to the client: the next group of suspects, or everything that is due."""
        while state.trials:
            found = self._due(state, state.trials.pop())
            if found:
                return found
            if not state.trials:
                state.rounds = 0
                state.reconsider()
        found = self._due(state, sorted(state.todo))
        state.todo.clear()
        return found

    def _due(self, state: TypeState, names: list[str]) -> tuple[Resource, ...]:
        found = (self.examine(state, name) for name in names)
        return tuple(resource for resource in found if resource is not None)

    def removal(self, state: TypeState) -> bytes | None:
        """Whole types: leave out what no longer exists. Other types have no way to say it: it is forgotten."""
        if state.pending or state.trials or state.todo:
            return None
        gone = self._gone(state)
        if not gone:
            return None
        if state.type_url in WILDCARD_TYPES:
            return self._respond(state, ())
        for name in gone:
            state.forget(name)
        return None

    def _gone(self, state: TypeState) -> tuple[str, ...]:
        """What may be left out from now on; a NACK brings it back, until one comes for nothing else."""
        url = state.type_url
        staying = self.named_by_others(url)
        if staying is None:
            return ()
        return tuple(
            name
            for name, have in state.overlay.items()
            if have != ABSENT and name not in staying and self.current.get(url, name) is None
        )

    def _respond(self, state: TypeState, news: tuple[Resource, ...]) -> bytes:
        if state.type_url not in WILDCARD_TYPES:
            return self.send(state, news, None, ())
        gone = self._gone(state)
        fresh = {resource.name: resource for resource in news}
        content = []
        for name in sorted({*self.wanted(state.type_url), *state.overlay}):
            have = fresh.get(name) or state.overlay.get(name)
            if have is None:
                have = self.current.get(state.type_url, name)
            if isinstance(have, Resource) and name not in gone:
                content.append(have)
        response = self.send(state, tuple(content), news, gone)
        if state.type_url == CLUSTER and self._unsure:
            self.warm(resource for resource in content if resource.name in self._unsure)
        return response
