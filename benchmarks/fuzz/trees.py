"""Mutations of JSON: parts dropped, doubled, renamed, swapped with parts of another tree, of another type, too deep, too many."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

from benchmarks.fuzz.mutate import TEXTS, mutate_text

SCALARS: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 100, 65535, 65536, 2**31, 2**32, 2**63, 2**64, -(2**63), 10**40, 0.5, -0.0, 1e308, 1e-320,
    float("inf"), float("nan"), [], {}, [[]], [{}], {"": ""}, {"a": {"a": {}}},
)  # fmt: skip
"""NaN and infinities too: YAML can say them."""
Path = tuple[str | int, ...]


def copied(tree: Any) -> Any:
    """Lists and mappings anew, the rest as it is."""
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


def mutate_tree(random: Random, tree: Any, other: Any, words: Sequence[str]) -> Any:
    """One to three changes, at places that are the likelier the deeper they lie; ``words``: of the format."""
    made = copied(tree)
    for _ in range(random.choice((1, 1, 2, 3))):
        made = _changed(random, made, other, words)
    return made


def _changed(random: Random, made: Any, other: Any, words: Sequence[str]) -> Any:
    holder, key = _place(random, made)
    if holder is None:
        return _scalar(random, made, words)
    value = holder[key]
    match random.randrange(9):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            name = (
                random.choice(words)
                if words and random.random() < 0.7
                else mutate_text(random, str(key))
            )
            holder[name] = holder.pop(key)
        case 1 | 2 if isinstance(holder, list):
            holder.extend(copied(value) for _ in range(random.choice((1, 1, 2, 40))))
        case 2:
            holder[random.choice(words) if words else ""] = copied(value)
        case 3:
            theirs, where = _place(random, other)
            holder[key] = copied(theirs[where]) if theirs is not None else copied(other)
        case 4:
            holder[key] = (
                [value] if random.random() < 0.5 else {random.choice(words or TEXTS): value}
            )
        case _:
            holder[key] = _scalar(random, value, words)
    return made


def _scalar(random: Random, value: Any, words: Sequence[str]) -> Any:
    if isinstance(value, str) and random.random() < 0.7:
        return mutate_text(random, value, words)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and random.random() < 0.5:
        return random.choice((value + 1, value - 1, -value, value * 10, str(value), value / 2))
    return copied(random.choice(SCALARS))


def _place(random: Random, tree: Any) -> tuple[Any, Any]:
    """A mapping or list within a tree, and one of its keys; (None, None) for a tree that has no places."""
    holder, key, now = None, None, tree
    while isinstance(now, (dict, list)) and now and (holder is None or random.random() < 0.85):
        holder = now
        key = random.choice(list(now)) if isinstance(now, dict) else random.randrange(len(now))
        now = now[key]
    return holder, key
