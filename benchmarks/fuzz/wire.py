"""Mutations of protobuf messages: fields dropped, doubled, renumbered, retyped, replaced, at any depth.

What is no message is mutated as bytes. Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from benchmarks.fuzz.mutate import mutate_bytes
from windward.xds.envelope import varint

Field = tuple[int, bytes | int]
"""(number, bytes) of a length-delimited field, (number, number) of a varint."""
NUMBERS = (0, 1, 127, 128, 2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1)
DEEPEST = 6
LONGEST = 4096
"""Bytes: what is slow because it is long tells nothing new."""


def split(raw: bytes) -> list[Field] | None:
    """The fields of a message; None for what is none, or has fields of a fixed width."""
    made: list[Field] = []
    at, end = 0, len(raw)
    while at < end:
        key, at = _varint(raw, at)
        if at < 0 or key < 8:
            return None
        value, at = _varint(raw, at)
        if at < 0 or key & 7 not in {0, 2}:
            return None
        if key & 7 == 0:
            made.append((key >> 3, value))
            continue
        if value > end - at:
            return None
        made.append((key >> 3, raw[at : at + value]))
        at += value
    return made


def join(fields: Sequence[Field]) -> bytes:
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(varint(number << 3) + varint(value))
        else:
            parts.append(varint(number << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


def mutate_message(
    random: Random, raw: bytes, other: bytes, tokens: Sequence[bytes], depth: int = 0
) -> bytes:
    """Mostly a message still, one field of which is another one."""
    fields = split(raw) if random.random() < 0.95 else None
    if fields is None or depth > DEEPEST:
        return mutate_bytes(random, raw, other, tokens)
    match random.randrange(8):
        case 0 if fields:
            del fields[random.randrange(len(fields))]
        case 1 if fields:
            fields += [random.choice(fields)] * random.choice((1, 1, 2, 50))
        case 2:
            number = random.choice((*range(1, 10), 15, 16, 2**29 - 1))
            fields.insert(random.randrange(len(fields) + 1), (number, _value(random, tokens)))
        case 3 if fields:
            random.shuffle(fields)
        case 4:
            theirs = split(other)
            if theirs:
                fields += random.sample(theirs, random.randint(1, len(theirs)))
        case _ if fields:
            _replace(random, fields, other, tokens, depth)
        case _:
            fields.append((random.randint(1, 7), _value(random, tokens)))
    made = join(fields)
    return made if len(made) <= LONGEST else made[: random.randrange(LONGEST)]


def _replace(
    random: Random, fields: list[Field], other: bytes, tokens: Sequence[bytes], depth: int
) -> None:
    at = random.randrange(len(fields))
    number, value = fields[at]
    match random.randrange(6):
        case 0:
            number = random.randint(1, 12)
        case 1:
            value = _value(random, tokens)
        case _ if isinstance(value, int):
            value = random.choice(NUMBERS)
        case _:
            value = mutate_message(random, value, other, tokens, depth + 1)
    fields[at] = (number, value)


def _value(random: Random, tokens: Sequence[bytes]) -> bytes | int:
    if random.random() < 0.15 or not tokens:
        return random.choice(NUMBERS)
    return random.choice(tokens)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """(number, where it ends); the latter is -1 for what is none."""
    number = shift = 0
    for index in range(at, min(at + 10, len(raw))):
        byte = raw[index]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, index + 1
        shift += 7
    return 0, -1
