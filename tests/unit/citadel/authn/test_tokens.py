"""Join tokens: as many uses as granted, as long as granted, and nothing of them in the store but a hash."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.citadel.authn import tokens
from windward.identity.spiffe_id import workload_id
from windward.store.errors import Conflict, Unavailable
from windward.store.memory import MemoryStore
from windward.store.protocol import Entry, Transaction

ALICE = workload_id("cluster.local", "shop", "alice")
BOB = workload_id("cluster.local", "shop", "bob")


class Slow(MemoryStore):
    """Reads let the others go on, as a network does: racing callers all see the same record."""

    async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
        found = await super().get(key, revision=revision)
        await asyncio.sleep(0)
        return found


@pytest.mark.parametrize("uses", [1, 2, 7])
async def test_a_token_is_good_for_its_uses_and_then_gone(uses: int):
    store = MemoryStore()
    token = await tokens.create(store, ALICE, 60, uses)
    for _ in range(uses):
        assert await tokens.usable(store, token.secret)
        assert await tokens.redeem(store, token.secret) == ALICE
    assert not await tokens.usable(store, token.secret)
    assert await tokens.redeem(store, token.secret) is None
    assert (await store.list("/")).entries == ()


@pytest.mark.parametrize(("uses", "callers"), [(1, 6), (2, 6), (3, 6)])
async def test_racing_callers_never_get_more_than_was_granted(uses: int, callers: int):
    store = Slow()
    token = await tokens.create(store, ALICE, 60, uses)
    results = await asyncio.gather(*(tokens.redeem(store, token.secret) for _ in range(callers)))
    assert [result for result in results if result] == [ALICE] * uses


async def test_tokens_do_not_know_one_another():
    store = MemoryStore()
    one, other = await tokens.create(store, ALICE, 60, 1), await tokens.create(store, BOB, 60, 1)
    assert one.secret != other.secret
    assert await tokens.redeem(store, other.secret) == BOB
    assert await tokens.redeem(store, one.secret) == ALICE


async def test_uses_do_not_prolong_a_token():
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    token = await tokens.create(store, ALICE, 60, 5)
    now[0] = 50.0
    assert await tokens.redeem(store, token.secret) == ALICE
    now[0] = 60.0
    assert await tokens.redeem(store, token.secret) is None
    assert (await store.list("/")).entries == ()


async def test_the_store_holds_a_hash_only():
    store = MemoryStore()
    token = await tokens.create(store, ALICE, 60, 2)
    await tokens.redeem(store, token.secret)
    (entry,) = (await store.list("/")).entries
    bare = token.secret.removeprefix(tokens.PREFIX)
    assert bare not in entry.key
    assert bare.encode() not in entry.value
    assert entry.lease, "it ends by itself"


async def test_a_token_has_256_bits_that_are_never_the_same():
    store = MemoryStore()
    made = {(await tokens.create(store, ALICE, 60, 1)).secret for _ in range(50)}
    assert len(made) == 50
    assert all(len(secret) - len(tokens.PREFIX) >= 43 for secret in made)


def near_misses(secret: str) -> list[str]:
    middle = len(secret) // 2
    other = "A" if secret[middle] != "A" else "B"
    return [
        "",
        tokens.PREFIX,
        secret[:-1],
        secret + "=",
        secret + " ",
        secret.upper(),
        secret.removeprefix(tokens.PREFIX),
        secret[:middle] + other + secret[middle + 1 :],
        tokens.key_of(secret),
        secret + "x" * 200,
    ]


async def test_near_misses_are_refused_and_take_no_use():
    store = MemoryStore()
    token = await tokens.create(store, ALICE, 60, 1)
    for text in near_misses(token.secret):
        assert await tokens.redeem(store, text) is None
    assert await tokens.redeem(store, token.secret) == ALICE


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200).map(lambda text: tokens.PREFIX + text))
def test_text_in_a_tokens_form_is_looked_up_and_refused(text: str):
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # no such text comes off the wire
    assert asyncio.run(tokens.redeem(MemoryStore(), text)) is None


async def test_an_overlong_text_does_not_reach_the_store():
    class Untouchable(MemoryStore):
        async def get(self, key: str, *, revision: int | None = None) -> Entry | None:
            raise AssertionError(key)

    assert await tokens.redeem(Untouchable(), tokens.PREFIX + "x" * 1_000_000) is None
    assert await tokens.redeem(Untouchable(), "anything") is None


async def test_a_lost_race_is_tried_again():
    class Contested(MemoryStore):
        lost = 0

        async def commit(self, transaction: Transaction) -> int:
            if self.lost < 3 and transaction.conditions[0].key.startswith(tokens.TOKENS):
                self.lost += 1
                raise Conflict("somebody else was faster")
            return await super().commit(transaction)

    store = Contested()
    store.lost = 3
    token = await tokens.create(store, ALICE, 60, 2)
    store.lost = 0
    assert await tokens.redeem(store, token.secret) == ALICE
    assert store.lost == 3


async def test_a_store_that_is_away_is_no_wrong_token():
    """The caller must be told to come again, not to fetch another token."""

    class Away(MemoryStore):
        async def get(self, key: str, *, revision: int | None = None) -> Any:
            raise Unavailable("no endpoint answers")

    with pytest.raises(Unavailable):
        await tokens.redeem(Away(), tokens.PREFIX + "x")
