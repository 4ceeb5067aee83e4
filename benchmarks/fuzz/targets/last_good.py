"""The agent's state on disk, read back: cut, changed, of another, and with a digest that fits what was changed.

Asserted: only UnusableError leaves; what is read belongs to the owner who asks, and is written again as it was read.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random
from types import ModuleType
from typing import Any, Final

import msgspec

from benchmarks.fuzz.mutate import mutate_bytes
from benchmarks.fuzz.target import Single
from benchmarks.fuzz.trees import mutate_tree
from services.agent.xds_proxy import last_good
from services.agent.xds_proxy.cache import Accepted, Held
from services.agent.xds_proxy.last_good import (
    DIGEST_BYTES,
    FORMAT,
    LEAD,
    MAGIC,
    Owner,
    State,
    UnusableError,
    decode,
    encode,
)
from windward.rpc.credentials import TlsMaterial
from windward.xds.resource import CLUSTER, ENDPOINT

OWNER: Final = Owner("spiffe://cluster.local/ns/shop/sa/reviews", "sidecar~10.0.0.1~r.shop~shop")
WORDS: Final = (
    MAGIC,
    b"{}",
    b"null",
    b'"identity"',
    b"\xdf\xff\xff\xff\xff",
    b"\x93",
    b"\xc4\x00",
    b"\xa1a",
    b"1e999",
    LEAD.pack(FORMAT, 0),
)


class LastGood(Single):
    modules: Sequence[ModuleType] = (last_good,)

    def seeds(self) -> Sequence[bytes]:
        held = {"a": Held("1", b"entry a"), "b": Held("2", b"entry b" * 20)}
        types = {
            CLUSTER: Accepted(dict(held), set(), answered=True),
            ENDPOINT: Accepted({}, {"gone", "too"}, answered=True),
        }
        material = TlsMaterial(b"chain", b"key", b"roots")
        return [
            encode(State(types, "7.9", 1.5, material), OWNER),
            encode(State(types, "", 0.0, None), OWNER),
            encode(State({}, "7", 1e9, material), Owner("other", "node")),
        ]

    def mutate(self, random: Random, chosen: bytes, other: bytes) -> bytes:
        """Half of them with a digest that fits, some of which have a body that was well-formed before it was changed."""
        if random.random() < 0.3 and (made := _reformed(random, chosen)):
            return made
        made = mutate_bytes(random, chosen, other, WORDS)
        if random.random() < 0.6:
            content = made[:-DIGEST_BYTES]
            return content + last_good._digest(content)  # noqa: SLF001  a forger knows how it is made
        return made

    def execute(self, given: bytes) -> Hashable:
        try:
            state = decode(given, OWNER)
        except UnusableError as error:
            return str(error)[:40]
        again = decode(encode(state, OWNER), OWNER)
        assert again.types == state.types
        assert again.material == state.material
        assert repr((again.saved_at, again.revision)) == repr((state.saved_at, state.revision))
        return len(state.types), state.material is None


def _reformed(random: Random, raw: bytes) -> bytes:
    """The same file with another header or body of the same format; empty where it is none."""
    at = len(MAGIC)
    try:
        _, length = LEAD.unpack_from(raw, at)
        at += LEAD.size
        header: Any = msgspec.json.decode(raw[at : at + length])
        body: Any = msgspec.msgpack.decode(raw[at + length : -DIGEST_BYTES])
        if random.random() < 0.5:
            body = mutate_tree(random, body, header, (CLUSTER, "", "a"))
        else:
            header = mutate_tree(random, header, body, ("identity", "saved_at", "body_bytes", "a"))
        packed = msgspec.msgpack.encode(body)
        if isinstance(header, dict) and random.random() < 0.9:
            header["body_bytes"] = len(packed)
        head = msgspec.json.encode(header)
    except Exception:
        return b""
    content = b"".join((MAGIC, LEAD.pack(FORMAT, len(head)), head, packed))
    return content + last_good._digest(content)  # noqa: SLF001
