"""Whom to blame for what is refused or cannot be built: tried with objects left out, then with their fields left out.

what is tried, suspects -> [Blame(object, field path, words)]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from services.pilot.blame.changed import Change, Object
from services.pilot.blame.search import Found, Names, bad_fields, bad_ones
from windward.config.object import ObjectKey
from windward.config.report import Report
from windward.config.walk import BAD, walk_partial

NAMES = Names(
    placing=frozenset(
        {
            "hosts", "host", "gateways", "exportTo", "selector", "workloadSelector",
            "labels", "sourceLabels", "sourceNamespace", "port",
        }
    ),
    keyed=frozenset({"headers", "withoutHeaders", "queryParams", "set", "add"}),
    modes=frozenset({"protocol"}),
)  # fmt: skip
MOST_BLAMES = 5
"""Of one refused resource: each is searched for with those before it left out."""
MOST_SUSPECTS = 16
"""Of a kind, that are tried one by one."""
LONGEST_WORDS = 400


@dataclass(frozen=True, slots=True)
class Blame:
    key: ObjectKey
    path: str
    """The smallest field without which it is taken, e.g. ``spec.http[0].match[0].uri``; ``spec`` when it is no single one."""
    words: str
    """Envoy's, or those of the error when it was built."""


class Trial(Protocol):
    """(changes...) -> words against what they would make; empty: it is taken; None: nothing is left to try."""

    def __call__(self, *changes: Change) -> Awaitable[str | None]: ...

    def effect(self, *changes: Change) -> object:
        """Equal when changes make the same."""


async def blames(trial: Trial, suspects: Sequence[Object]) -> list[Blame]:
    """Everyone to blame, the likeliest suspect first; nobody when it is taken as it is.

    The first that is found is left out while the next is looked for.
    """
    found: list[Blame] = []
    out: list[Change] = []
    left = await _fewer(trial, suspects)
    while left and len(found) < MOST_BLAMES and (words := await trial(*out)):
        item, fields = await _Suspicion(trial, tuple(out)).first_of(left)
        found += [Blame(item.key, field.path, shortened(words)) for field in fields]
        left = [other for other in left if other is not item]
        out.append((item, None))
    return found


async def _fewer(trial: Trial, suspects: Sequence[Object]) -> list[Object]:
    """Of many suspects those who are refused without all others of their kind; all, when that tells none."""
    kinds = Counter(item.key.kind for item in suspects)
    left: list[Object] = []
    for kind, count in kinds.items():
        row = [item for item in suspects if item.key.kind == kind]

        async def refused(kept: Sequence[Object], row: Sequence[Object] = row) -> bool:
            there = set(map(id, kept))
            return bool(await trial(*((item, None) for item in row if id(item) not in there)))

        # With none of them at all it is not one of them.
        if count > MOST_SUSPECTS and not await refused(()):
            row = await bad_ones(row, refused)
        left += row
    return left


class _Suspicion:
    """Who it is among several, these changes made."""

    def __init__(self, trial: Trial, out: tuple[Change, ...]) -> None:
        self._trial = trial
        self._out = out

    async def first_of(self, suspects: Sequence[Object]) -> tuple[Object, list[Found]]:
        """The first without whom all is well, and its fields."""
        needed: list[Object] = []
        """Without these nothing is left: that proves nothing."""
        others: list[Change] = []
        for item in suspects:
            words = await self._trial(*self._out, (item, None))
            if words == "":
                return item, await self._fields(item)
            if words is None:
                needed.append(item)
            else:
                others.append((item, None))
        for count, (item, _) in enumerate(others[1:], 1):
            # None alone, but several together: the last one is to blame once those before it are gone.
            if await self._trial(*self._out, *others[: count + 1]) == "":
                return item, await self._fields(item, *others[:count])
        tried = [(item, await self._fields(item)) for item in needed]
        for proved in (_is_sure, _is_found):
            for item, fields in tried:
                if proved(fields):
                    return item, fields
        # No single one: the object that is the most particular is the one to look at first.
        return suspects[0], [Found("spec", sure=False)]

    async def _fields(self, item: Object, *others: Change) -> list[Found]:
        async def refused(changed: Object) -> bool | None:
            words = await self._trial(*self._out, *others, (item, changed))
            return None if words is None else bool(words)

        gone = self._trial.effect(*self._out, *others, (item, None))

        async def instead(changed: Object) -> bool | None:
            """An object that is somewhere else altogether is as good as gone: that says nothing of where it was."""
            effect = self._trial.effect(*self._out, *others, (item, changed))
            return None if effect == gone else await refused(changed)

        return await fields_of(item, refused, instead)


def _is_sure(fields: Sequence[Found]) -> bool:
    return all(field.sure for field in fields)


def _is_found(fields: Sequence[Found]) -> bool:
    return all(field.path != "spec" for field in fields)


class Refused(Protocol):
    def __call__(self, changed: Object) -> Awaitable[bool | None]: ...


async def fields_of(item: Object, refused: Refused, instead: Refused) -> list[Found]:
    """The smallest fields of an object that are to blame for its refusal. ``instead``: asked of other values in their place."""
    spec, kind = item.raw.get("spec", {}), type(item.spec)
    faults = _faults(kind, spec)

    def trial(ask: Refused) -> Callable[[Any], Awaitable[bool | None]]:
        async def of(changed: Any) -> bool | None:
            report = Report("spec")
            made = walk_partial(kind, changed, report)
            # What is no value of its kind would be left out by the walk: that is no trial of it.
            if made is BAD or len(report.findings) > faults:
                return None
            return await ask(replace(item, spec=made))

        return of

    return await bad_fields(spec, trial(refused), "spec", NAMES, trial(instead))


def _faults(kind: type[Any], spec: Any) -> int:
    report = Report("spec")
    walk_partial(kind, spec, report)
    return len(report.findings)


def shortened(words: str) -> str:
    """Envoy may print the whole resource before it says what is wrong with it."""
    return words if len(words) <= LONGEST_WORDS else f"... {words[-LONGEST_WORDS:]}"
