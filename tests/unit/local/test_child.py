"""A supervised process: brought back when it dies, held down on demand, stopped in good order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from windward.local.child import Child, ChildSpec
from windward.local.errors import LocalMeshError


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not holds():
            await asyncio.sleep(0.02)


def spec(folder: Path, *command: str) -> ChildSpec:
    return ChildSpec("part", command, folder / "log", {"GREETING": "hello"}, directory=folder)


async def test_a_killed_process_is_started_again_and_a_stopped_one_is_not(tmp_path: Path):
    child = Child(spec(tmp_path, "sleep", "60"))
    await child.start()
    first = child.pid
    child.kill()
    await until(lambda: child.restarts == 1 and child.pid not in {None, first})
    await child.stop()
    assert child.pid is None
    assert child.restarts == 1


async def test_a_process_that_is_held_down_waits_for_its_revival(tmp_path: Path):
    child = Child(spec(tmp_path, "sleep", "60"))
    await child.start()
    child.kill(keep_down=True)
    await until(lambda: child.pid is None)
    assert child.restarts == 0
    child.revive()
    await until(lambda: child.pid is not None)
    assert child.restarts == 1
    await child.stop()


async def test_one_that_ignores_the_signal_is_killed_after_its_grace(tmp_path: Path):
    child = Child(
        spec(tmp_path, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    )
    await child.start()
    await until(lambda: "ready" in child.last_words())
    await child.stop(grace_s=0.2)
    assert child._process is not None
    assert child._process.returncode == -signal.SIGKILL


async def test_its_last_words_are_the_end_of_its_log(tmp_path: Path):
    child = Child(spec(tmp_path, "sh", "-c", "seq 9; echo $GREETING from $PWD; sleep 60"))
    assert child.last_words() == ""
    await child.start()
    await until(lambda: "hello" in child.last_words())
    assert child.last_words(2) == f"9\nhello from {tmp_path}"
    await child.stop()


async def test_what_cannot_be_started_says_so(tmp_path: Path):
    missing = ChildSpec("part", ("true",), tmp_path / "log", directory=tmp_path / "nowhere")
    with pytest.raises(LocalMeshError, match="part cannot be started"):
        await Child(missing).start()


def test_a_namespace_stands_before_the_command_and_its_group_is_dropped_to_inside(tmp_path: Path):
    inside = ChildSpec("part", ("app", "arg"), tmp_path / "log", namespace="ns", group=7).argv()
    assert inside[:4] == ("ip", "netns", "exec", "ns")
    assert inside[-2:] == ("app", "arg")
    assert 3 < inside.index("--regid") < inside.index("app")
