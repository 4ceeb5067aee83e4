"""The root: one for a mesh, whoever comes first; readable only with the key that sealed it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import serialization

from services.citadel.authority.root import BACKDATED, ROOT_KEY, load_or_create, new_serial
from windward.identity.certificate import identity_of
from windward.identity.keys import key_pem
from windward.store.memory import MemoryStore
from windward.store.protocol import Entry, Transaction, Unchanged, Write

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEK = b"k" * 32
TTL_S = 86_400


class Slow(MemoryStore):
    """Every read lets the others go on first, as a network does: all replicas see the same empty store."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        found = await super().get(key, revision=revision)
        await asyncio.sleep(0)
        return found

    async def commit(self, transaction: Transaction) -> int:
        try:
            return await super().commit(transaction)
        except Exception:
            self.refused += 1
            raise


async def open_root(store: Any, at: datetime = NOW):
    return await load_or_create(store, KEK, "cluster.local", TTL_S, lambda: at)


async def test_replicas_that_all_found_nothing_take_the_one_that_was_first():
    store = Slow()
    roots = await asyncio.gather(*(open_root(store) for _ in range(8)))
    assert store.refused == 7, "they did race"
    assert len({root.pem for root in roots}) == 1
    assert len({key_pem(root.issuer.key) for root in roots}) == 1
    assert len((await store.list(ROOT_KEY)).entries) == 1


async def test_a_restart_finds_the_same_root_whatever_it_would_make_now():
    store = MemoryStore()
    first = await open_root(store)
    later = await open_root(store, NOW + timedelta(days=300))
    assert (later.pem, later.revision) == (first.pem, first.revision)
    assert key_pem(later.issuer.key) == key_pem(first.issuer.key)


async def test_what_a_root_is():
    root = await open_root(MemoryStore())
    certificate = root.issuer.certificate
    assert str(identity_of(certificate)) == "spiffe://cluster.local"
    assert certificate.not_valid_before_utc == NOW - BACKDATED
    assert certificate.not_valid_after_utc == NOW + timedelta(seconds=TTL_S)
    assert certificate.public_key() == root.issuer.key.public_key()
    certificate.verify_directly_issued_by(certificate)


async def test_the_private_key_does_not_lie_in_the_store():
    store = MemoryStore()
    key = (await open_root(store)).issuer.key
    raw = key.private_numbers().private_value.to_bytes(32, "big")
    pem = key_pem(key)
    der = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (entry,) = (await store.list("/")).entries
    for secret in (raw, raw.hex().encode(), pem, der, b"PRIVATE KEY"):
        assert secret not in entry.value


async def test_a_root_that_is_there_is_never_written_over():
    store = MemoryStore()
    await open_root(store)
    before = await store.get(ROOT_KEY)
    await asyncio.gather(*(open_root(store) for _ in range(5)))
    assert await store.get(ROOT_KEY) == before


async def test_a_root_made_between_the_look_and_the_write_wins():
    """The store's owner of that moment: another replica, in the middle of our own creation."""

    class Overtaken(MemoryStore):
        overtaken = False

        async def commit(self, transaction: Transaction) -> int:
            if not self.overtaken:
                self.overtaken = True
                self.theirs = await open_root(self)
            return await super().commit(transaction)

    store = Overtaken()
    assert (await open_root(store)).pem == store.theirs.pem


async def test_the_write_says_that_nothing_was_there():
    """Compare-and-create: without the condition two replicas would each keep a root of their own."""
    seen: list[Transaction] = []

    class Watching(MemoryStore):
        async def commit(self, transaction: Transaction) -> int:
            seen.append(transaction)
            return await super().commit(transaction)

    await open_root(Watching())
    (transaction,) = seen
    assert transaction.conditions == (Unchanged(ROOT_KEY, 0),)
    (operation,) = transaction.operations
    assert isinstance(operation, Write)
    assert operation.lease == 0, "a root outlives every process"


def test_serial_numbers_are_positive_and_do_not_repeat():
    serials = [new_serial() for _ in range(1000)]
    assert len(set(serials)) == len(serials)
    assert all(0 < serial < 2**159 for serial in serials)
    assert max(serials).bit_length() > 100
