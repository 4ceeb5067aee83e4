"""Mutations of bytes and of text: small damage, and values at the edges of what formats can say."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

EDGES: Final = (
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\xff" * 9 + b"\x01",
    b"\x80" * 11,
)
"""Of lengths, varints and UTF-8."""  # fmt: skip
TEXTS: Final = (
    "", " ", "*", "~", ".", "..", "/", "\0", "\n", "\ud7ff", "\ufeff", "é", "💥", "0", "-1", "1e999", "nan", "%00",
    "${x}", "a" * 64, "a" * 300, "a.b.c", ".a", "a.", "::1", "::ffff:1.2.3.4", "0.0.0.0", "256.1.1.1", "1.2.3.4/33",
    "fe80::1%eth0", "0x7f000001", "١٢٣", "İ", "ß", "K", "true", "null", "18446744073709551616",
    "99999999999999999999999s",
)  # fmt: skip
"""Text that has surprised parsers."""
LONGEST: Final = 1 << 14


def mutate_bytes(random: Random, raw: bytes, other: bytes, tokens: Sequence[bytes] = ()) -> bytes:
    """One to four small changes; ``tokens`` are words of the format."""
    made = bytearray(raw)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _damage(random, made, other, tokens)
    return bytes(made[:LONGEST])


def _damage(random: Random, made: bytearray, other: bytes, tokens: Sequence[bytes]) -> None:
    at = random.randrange(len(made) + 1)
    to = min(at + random.choice((1, 1, 2, 4, 8, 32)), len(made))
    match random.randrange(8):
        case 0 if made:
            made[min(at, len(made) - 1)] ^= 1 << random.randrange(8)
        case 1 if made:
            made[min(at, len(made) - 1)] = random.randrange(256)
        case 2:
            del made[at:to]
        case 3:
            made[at:at] = made[at:to] * random.choice((1, 1, 2, 20))
        case 4:
            made[at:to] = random.choice(EDGES)
        case 5 if tokens:
            made[at:to] = random.choice(tokens)
        case 6 if tokens:
            made[at:at] = random.choice(tokens)
        case 7 if other:
            begin = random.randrange(len(other))
            made[at:] = other[begin:]
        case _:
            made[at:at] = random.randbytes(random.randrange(1, 5))


def mutate_text(random: Random, text: str, tokens: Sequence[str] = ()) -> str:
    """A text near to one, or another one altogether."""
    at = random.randrange(len(text) + 1)
    to = min(at + random.choice((1, 1, 2, 5)), len(text))
    match random.randrange(7):
        case 0:
            return random.choice(TEXTS)
        case 1 if tokens:
            return random.choice(tokens)
        case 2:
            return text[:at] + random.choice(TEXTS) + text[at:]
        case 3:
            return text[:at] + text[to:]
        case 4:
            return (text[:at] + text[at:to] * random.choice((2, 3, 30)) + text[to:])[:LONGEST]
        case 5 if tokens:
            return text[:at] + random.choice(tokens) + text[to:]
        case _:
            return (
                text[:at]
                + chr(random.choice((0, 9, 31, 46, 47, 92, 126, 233, 8232, 65535)))
                + text[to:]
            )
