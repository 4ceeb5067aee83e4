"""A scope that is ended from outside: silently when it was, and not otherwise."""

from __future__ import annotations

import asyncio

import pytest

from services.pilot.xds.ending import Ending


async def waits(ending: Ending) -> str:
    async with ending:
        await asyncio.Event().wait()
    return ending.reason


async def test_an_end_leaves_the_scope_with_its_reason():
    ending = Ending()
    task = asyncio.create_task(waits(ending))
    await asyncio.sleep(0)
    ending.end("age")
    ending.end("drain")
    assert await task == "age"


async def test_a_cancellation_of_others_goes_further():
    ending = Ending()
    task = asyncio.create_task(waits(ending))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_are_a_cancellation():
    ending = Ending()
    task = asyncio.create_task(waits(ending))
    await asyncio.sleep(0)
    ending.end("age")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_end_after_the_scope_is_nothing():
    ending = Ending()
    async with ending:
        pass
    ending.end("late")
    await asyncio.sleep(0)
    assert ending.reason == ""
