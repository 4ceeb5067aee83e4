"""TLS material: replaced under way, waited for, and never shown with its key."""

from __future__ import annotations

import asyncio

from windward.rpc.credentials import TlsMaterial, TlsSource

FIRST = TlsMaterial(b"chain 1", b"the key", b"roots")
SECOND = TlsMaterial(b"chain 2", b"the key", b"roots")


def test_the_key_is_not_shown():
    assert "the key" not in repr(FIRST)
    assert "the key" not in f"{FIRST!s} {[FIRST]}"


async def test_a_replacement_raises_the_sequence():
    source = TlsSource(FIRST)
    before = source.sequence
    source.replace(SECOND)
    assert source.current is SECOND
    assert source.sequence == before + 1


async def test_equal_material_changes_nothing():
    source = TlsSource(FIRST)
    before = source.sequence
    source.replace(TlsMaterial(b"chain 1", b"the key", b"roots"))
    assert source.sequence == before


async def test_waiting_ends_with_what_is_newer():
    source = TlsSource(FIRST)
    waiters = [asyncio.create_task(source.changed(source.sequence)) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters)
    source.replace(SECOND)
    assert await asyncio.gather(*waiters) == [SECOND] * 3


async def test_who_asks_late_need_not_wait():
    source = TlsSource(FIRST)
    seen = source.sequence
    source.replace(SECOND)
    assert await source.changed(seen) is SECOND


async def test_two_replacements_before_the_waiter_runs_give_it_the_last():
    source = TlsSource(FIRST)
    waiter = asyncio.create_task(source.changed(source.sequence))
    await asyncio.sleep(0)
    source.replace(SECOND)
    source.replace(FIRST)
    assert await waiter is FIRST
