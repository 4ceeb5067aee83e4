"""Finding what is bad by trying: among many things, and among the fields of one. The trial is an argument.

Envoy's own words are never read for this: protobuf changes them from run to run, and they name no field of the user's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

MOST_TRIALS = 200
"""Of fields. Beyond it the field found so far is the answer."""
MOST_SIBLINGS = 8
"""That are tried one by one."""
MOST_ROW = 64
"""Entries of a map that may be an object's fields; of more, any half of which is enough to leave out, there are too many."""
HARMLESS_NUMBERS = (1, 200)
HARMLESS_TEXTS = ("1s", "/a", "10.0.0.1")
HARMLESS_KEY = "x-harmless"
_GONE: Any = object()
"""In the place of what is left out, so that what stays keeps its place; never in what is tried."""
Step = str | int


async def bad_ones(
    items: Sequence[T], refused: Callable[[Sequence[T]], Awaitable[bool]]
) -> list[T]:
    """The items that are refused alone; O(bad * log items) trials.

    Items that are only refused together are told together, as few of them as halving leaves.
    """
    if not items or not await refused(items):
        return []
    if len(items) == 1:
        return list(items)
    middle = len(items) // 2
    found = await bad_ones(items[:middle], refused) + await bad_ones(items[middle:], refused)
    return found or list(items)


# ---- fields ---------------------------------------------------------------------------------------------------------

Trial = Callable[[Any], Awaitable["bool | None"]]
"""A changed value -> whether it is refused; None when that value says nothing (it is no value of its kind)."""
Rebuilt = Callable[[Any], Any]
"""The whole with another value in place of a part."""


@dataclass(frozen=True, slots=True)
class Names:
    """What fields mean to the search."""

    placing: AbstractSet[str] = frozenset()
    """They say where a value applies. Without them nothing is left to refuse, which explains nothing: asked about last."""
    keyed: AbstractSet[str] = frozenset()
    """Below them names are the user's own, so that no name places anything."""
    modes: AbstractSet[str] = frozenset()
    """They say how others are read: nothing is harmless in their place."""


NO_NAMES = Names()


@dataclass(frozen=True, slots=True)
class Found:
    path: str
    """Empty: the whole itself."""
    sure: bool
    """A harmless value (or name) in its place is taken; else the whole is only taken without it."""


@dataclass(frozen=True, slots=True)
class _Part:
    value: Any
    whole: Rebuilt
    path: str
    step: Step = ""
    parent: _Part | None = None

    def parts(self) -> list[_Part]:
        return [
            _Part(child, partial(self._with, step), _joined(self.path, step), step, self)
            for step, child in _children(self.value)
            if child is not _GONE
        ]

    def leaves(self) -> list[_Part]:
        if isinstance(self.value, (dict, list)):
            return [leaf for part in self.parts() for leaf in part.leaves()]
        return [self]

    def _with(self, step: Step, new: Any) -> Any:
        return self.whole(_with(self.value, step, new))

    def less(self, parts: Sequence[_Part]) -> _Part:
        """The same with some of its parts left out."""
        return replace(self, value=_without(self.value, {part.step for part in parts}))

    def without(self, parts: Sequence[_Part]) -> Any:
        """The whole, these of the parts left out."""
        return self.whole(self.less(parts).value)

    def is_placing(self, names: Names) -> bool:
        """Whether it, or what it is part of, says where something applies."""
        above = self.parent is not None and self.parent.is_placing(names)
        return above or (self.step in names.placing and not self._is_keyed(names))

    def _is_keyed(self, names: Names) -> bool:
        at = self.parent
        while at is not None and at.step not in names.keyed:
            at = at.parent
        return at is not None


async def bad_fields(
    value: Any,
    refused: Trial,
    path: str = "",
    names: Names = NO_NAMES,
    instead: Trial | None = None,
) -> list[Found]:
    """The smallest parts of a JSON value that are to blame; mostly one, several where one alone does not explain it.

    To blame is a part without which the whole is taken. Of several of those (without ``attempts`` a bad
    ``perTryTimeout`` is not looked at), and where there is none (a redirect is needed), it is the scalar in whose place a
    harmless one is taken. ``instead``: the trial of values in others' place; of what is left out when it is not given.
    """
    return await _Search(refused, instead or refused, names).search(
        _Part(value, lambda new: new, path)
    )


async def bad_path(value: Any, refused: Trial, path: str = "") -> str:
    """The first of ``bad_fields``."""
    return (await bad_fields(value, refused, path))[0].path


class _Search:
    def __init__(self, refused: Trial, instead: Trial, names: Names) -> None:
        self._refused = refused
        self._instead = instead
        self._names = names
        self._left = MOST_TRIALS

    async def _mends(self, changed: Any, trial: Trial | None = None) -> bool:
        self._left -= 1
        return self._left >= 0 and await (trial or self._refused)(_stripped(changed)) is False

    async def search(self, whole: _Part) -> list[Found]:
        found = await self._narrow(whole)
        if len(found) != 1 or found[0].sure:
            return found
        # Without endpoints their bad port is not looked at either: a value that is harmless elsewhere says more.
        for placing in (False, True):
            cured = await self._cured_leaf(whole, placing=placing)
            if cured:
                return [Found(cured, sure=True)]
        return found

    async def _narrow(self, at: _Part) -> list[Found]:
        """From the outside in, as long as something can be left out."""
        while True:
            mending = await self._mending(at)
            if not mending and len(self._tried(at)) > MOST_SIBLINGS:
                several = await self._bad_alone(at)
                if several:
                    return several
            if len(mending) != 1:
                # What stands first in an object mostly says where it applies; what it says comes after.
                few = mending if len(mending) <= MOST_SIBLINGS else ()
                for part in reversed(few if mending else at.parts()):
                    cured = await self._cured_leaf(part, placing=False)
                    if cured:
                        return [Found(cured, sure=True)]
                if not mending:
                    return await self._together(at)
                if isinstance(at.value, list) or len(mending) > MOST_SIBLINGS:
                    return [Found(at.path, sure=True)]  # each is good, and they are too many
            # A mode, which nothing can stand in for, says how the others are read.
            at = max(mending, key=lambda part: isinstance(part.value, (dict, list)))
            if not isinstance(at.value, (dict, list)) or not at.value:
                return [await self._scalar(at)]

    async def _scalar(self, at: _Part) -> Found:
        return Found(at.path, await self._cured(at) or await self._cured_name(at))

    async def _within(self, at: _Part, part: _Part, out: Sequence[_Part]) -> list[Found]:
        """What is bad in one of the parts when these are left out."""
        [this] = [child for child in at.less(out).parts() if child.step == part.step]
        if isinstance(this.value, (dict, list)) and this.value:
            return await self._narrow(this)
        return [await self._scalar(this)]

    async def _bad_alone(self, at: _Part) -> list[Found]:
        """Of a long row those that are refused without all others, and what is bad in each; nothing when that tells none."""
        row = self._tried(at)

        async def refused(kept: Sequence[_Part]) -> bool:
            steps = {part.step for part in kept}
            self._left -= 1
            others = at.without([part for part in row if part.step not in steps])
            return self._left >= 0 and await self._refused(_stripped(others)) is True

        bad = await bad_ones(row, refused)
        if not 1 < len(bad) <= MOST_SIBLINGS:
            return []
        return [
            found
            for part in bad
            for found in await self._within(at, part, [one for one in bad if one is not part])
        ]

    async def _together(self, at: _Part) -> list[Found]:
        """Nothing alone is enough to leave out: the name of this part, or several of its parts, each bad by itself."""
        if await self._cured_name(at):
            return [Found(at.path, sure=True)]
        left = self._tried(at)
        out: list[_Part] = []
        for part in left if len(left) <= MOST_SIBLINGS else ():
            if out and await self._mends(at.without([*out, part])):
                last = await self._within(at, part, out)
                return [*await self._narrow(at.less([part])), *last]
            out.append(part)
        for part in left:
            # Without the part itself nothing is left to refuse; without something in it there may be.
            if isinstance(part.value, (dict, list)) and part.value and self._left > 0:
                found = await self._narrow(part)
                if found[0].path != part.path:
                    return found
        return [Found(at.path, sure=False)]

    def _tried(self, at: _Part) -> list[_Part]:
        return [part for part in at.parts() if not part.is_placing(self._names)]

    async def _mending(self, at: _Part) -> list[_Part]:
        """The parts, each of which is enough to leave out; of a long row one, found by halves, or all: too many."""
        parts = self._tried(at)
        row = len(parts) > MOST_ROW
        while len(parts) > MOST_SIBLINGS:
            middle = len(parts) // 2
            halves = [
                half
                for half in (parts[:middle], parts[middle:])
                if await self._mends(at.without(half))
            ]
            if not halves or (row and len(halves) > 1):
                return parts if halves else []
            parts = halves[0]
        return [part for part in parts if await self._mends(at.without([part]))]

    async def _cured_leaf(self, part: _Part, *, placing: bool) -> str:
        """The first scalar in whose place a harmless one is taken; empty when there is none."""
        for leaf in part.leaves():
            if leaf.is_placing(self._names) is placing and await self._cured(leaf):
                return leaf.path
        return ""

    async def _cured(self, leaf: _Part) -> bool:
        if leaf.step in self._names.modes:
            return False
        for harmless in _harmless(leaf.value):
            if harmless != leaf.value and await self._mends(leaf.whole(harmless), self._instead):
                return True
        return False

    async def _cured_name(self, part: _Part) -> bool:
        """Whether another name in a map mends it; what is no map has no such name, so that it says nothing there."""
        parent = part.parent
        if parent is None or not isinstance(parent.value, dict):
            return False
        value = {**parent.value, part.step: _GONE, HARMLESS_KEY: part.value}
        return await self._mends(parent.whole(value))


def _harmless(value: Any) -> Sequence[Any]:
    """Values of the same kind that are taken nearly everywhere: 200 is also a status."""
    if isinstance(value, bool) or value is None:
        return ()
    return HARMLESS_NUMBERS if isinstance(value, (int, float)) else HARMLESS_TEXTS


def _children(value: Any) -> list[tuple[Step, Any]]:
    if isinstance(value, dict):
        return [(str(key), child) for key, child in value.items()]
    return list(enumerate(value)) if isinstance(value, list) else []


def _without(value: Any, steps: AbstractSet[Step]) -> Any:
    if isinstance(value, dict):
        return {key: _GONE if key in steps else child for key, child in value.items()}
    return [_GONE if index in steps else child for index, child in enumerate(value)]


def _stripped(value: Any) -> Any:
    """A value as it is tried."""
    if isinstance(value, dict):
        return {key: _stripped(child) for key, child in value.items() if child is not _GONE}
    if isinstance(value, list):
        return [_stripped(child) for child in value if child is not _GONE]
    return value


def _with(value: Any, step: Step, new: Any) -> Any:
    if isinstance(value, dict):
        return {**value, step: new}
    return [new if index == step else child for index, child in enumerate(value)]


def _joined(path: str, step: Step) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step
