"""Finding what is bad by trying: among many things, and among the fields of one. The trial is an argument.

Envoy's own words are never read for this: protobuf changes them from run to run, and they name no field of the user's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

MOST_TRIALS = 200
"""Of fields. Beyond it the field found so far is the answer."""


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
    """The path of the smallest part of a JSON value without which the whole is taken; empty: the whole itself."""
    left = [MOST_TRIALS]

    async def mends(changed: Any) -> bool:
        left[0] -= 1
        return left[0] >= 0 and await refused(changed) is False

    async def descend(at: Any, rebuilt: Callable[[Any], Any], path: str) -> str:
        for step, child in _children(at):
            if not await mends(rebuilt(_without(at, step))):
                continue
            below = _joined(path, step)
            if not isinstance(child, (dict, list)) or not child:
                return below
            return await descend(child, _placed(rebuilt, at, step), below)
        return path

    return await descend(value, lambda new: new, path)


Step = str | int


def _placed(rebuilt: Callable[[Any], Any], at: Any, step: Step) -> Callable[[Any], Any]:
    """The whole with another value at a step of this part."""
    return lambda new: rebuilt(_with(at, step, new))


def _children(value: Any) -> list[tuple[Step, Any]]:
    if isinstance(value, dict):
        return [(str(key), child) for key, child in value.items()]
    return list(enumerate(value)) if isinstance(value, list) else []


def _without(value: Any, step: Step) -> Any:
    if isinstance(value, dict):
        return {key: child for key, child in value.items() if key != step}
    return [child for index, child in enumerate(value) if index != step]


def _with(value: Any, step: Step, new: Any) -> Any:
    if isinstance(value, dict):
        return {**value, step: new}
    return [new if index == step else child for index, child in enumerate(value)]


def _joined(path: str, step: Step) -> str:
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step
