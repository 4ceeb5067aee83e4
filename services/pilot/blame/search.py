"""Finding what is bad by trying: among many things, and among the fields of one. The trial is an argument.

Envoy's own words are never read for this: protobuf changes them from run to run, and they name no field of the user's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

T = TypeVar("T")

MOST_TRIALS = 200
"""Of fields. Beyond it the field found so far is the answer."""
MOST_SIBLINGS = 8
"""That are tried one by one."""
HARMLESS_NUMBERS = (1, 200)
HARMLESS_TEXTS = ("1s", "/a", "10.0.0.1")
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


Trial = Callable[[Any], Awaitable["bool | None"]]
"""A changed value -> whether it is refused; None when that value says nothing (it is no value of its kind)."""


async def bad_path(value: Any, refused: Trial, path: str = "") -> str:
    """The path of the smallest part of a JSON value that is to blame; empty: the whole itself.

    To blame is a part without which the whole is taken. Of several of those (without ``attempts`` a bad
    ``perTryTimeout`` is not looked at), and where there is none (a redirect is needed), it is the scalar in whose place a
    harmless one is taken.
    """
    left = [MOST_TRIALS]

    async def mends(changed: Any) -> bool:
        left[0] -= 1
        return left[0] >= 0 and await refused(changed) is False

    return await _descend(value, lambda new: new, mends, path)


Mends = Callable[[Any], Awaitable[bool]]
Rebuilt = Callable[[Any], Any]
"""The whole with another value in place of a part."""


async def _descend(at: Any, rebuilt: Rebuilt, mends: Mends, path: str) -> str:
    found = await _mending(at, rebuilt, mends)
    if len(found) != 1:
        # What stands first in an object mostly says where it applies; what it says comes after.
        for step, child in reversed(found or _children(at)):
            cured = await _curable(child, _placed(rebuilt, at, step), mends, _joined(path, step))
            if cured:
                return cured
        found = found[:1]
    if not found:
        return path
    [(step, child)] = found
    below = _joined(path, step)
    if not isinstance(child, (dict, list)) or not child:
        return below
    return await _descend(child, _placed(rebuilt, at, step), mends, below)


async def _mending(at: Any, rebuilt: Rebuilt, mends: Mends) -> list[tuple[Step, Any]]:
    """The children, each of which is enough to leave out; of a long row one, found by halves."""
    steps = _children(at)
    while len(steps) > MOST_SIBLINGS:
        middle = len(steps) // 2
        for half in (steps[:middle], steps[middle:]):
            if await mends(rebuilt(_without(at, {step for step, _ in half}))):
                steps = half
                break
        else:
            return []
    return [(step, child) for step, child in steps if await mends(rebuilt(_without(at, {step})))]


async def _curable(value: Any, rebuilt: Rebuilt, mends: Mends, path: str) -> str:
    """The first scalar, below this path, in whose place a harmless one is taken; empty when there is none."""
    if isinstance(value, (dict, list)):
        for step, child in _children(value):
            found = await _curable(child, _placed(rebuilt, value, step), mends, _joined(path, step))
            if found:
                return found
        return ""
    for harmless in _harmless(value):
        if harmless != value and await mends(rebuilt(harmless)):
            return path
    return ""


def _harmless(value: Any) -> Sequence[Any]:
    """Values of the same kind that are taken nearly everywhere: 200 is also a status."""
    if isinstance(value, bool) or value is None:
        return ()
    return HARMLESS_NUMBERS if isinstance(value, (int, float)) else HARMLESS_TEXTS


def _placed(rebuilt: Callable[[Any], Any], at: Any, step: Step) -> Callable[[Any], Any]:
    """The whole with another value at a step of this part."""
    return lambda new: rebuilt(_with(at, step, new))


def _children(value: Any) -> list[tuple[Step, Any]]:
    if isinstance(value, dict):
        return [(str(key), child) for key, child in value.items()]
    return list(enumerate(value)) if isinstance(value, list) else []


def _without(value: Any, steps: AbstractSet[Step]) -> Any:
    if isinstance(value, dict):
        return {key: child for key, child in value.items() if key not in steps}
    return [child for index, child in enumerate(value) if index not in steps]


def _with(value: Any, step: Step, new: Any) -> Any:
    if isinstance(value, dict):
        return {**value, step: new}
    return [new if index == step else child for index, child in enumerate(value)]


def _joined(path: str, step: Step) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step
