"""The application of ``windward-agent run``: a child of its own will."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from services.agent import application as module
from services.agent.application import Application, split_command
from windward.process import FatalError

OBEDIENT = (
    "trap 'echo {name} >> {file}; exit 3' {name}; echo up >> {file}; while :; do sleep 0.01; done"
)


def script(text: str) -> Application:
    return Application(["/bin/sh", "-c", text])


async def lines(file: Path, count: int) -> list[str]:
    while not file.exists() or len(file.read_text().split()) < count:
        await asyncio.sleep(0.005)
    return file.read_text().split()


@pytest.mark.parametrize(
    ("text", "status"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
async def test_its_exit_status_is_passed_on_as_a_shell_tells_it(text, status):
    application = script(text)
    await application.run()
    assert application.status == status
    assert application.ended.is_set()


async def test_one_that_is_not_there_is_one_line():
    with pytest.raises(FatalError, match=r"^/no/such: No such file"):
        await Application(["/no/such"]).run()


async def test_it_is_asked_before_it_is_killed(tmp_path):
    application = script(OBEDIENT.format(name="TERM", file=tmp_path / "said"))
    running = asyncio.create_task(application.run())
    await lines(tmp_path / "said", 1)
    await application.stop(5.0)
    await running
    assert (tmp_path / "said").read_text().split() == ["up", "TERM"]
    assert application.status == 3


async def test_one_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KILL_GRACE_S", 0.05)
    application = script(f"trap '' TERM; echo up > {tmp_path}/said; while :; do sleep 0.01; done")
    running = asyncio.create_task(application.run())
    await lines(tmp_path / "said", 1)
    await application.stop(0.0)
    await running
    assert application.status == 137


async def test_signals_that_reach_the_agent_reach_it(tmp_path):
    application = script(OBEDIENT.format(name="USR1", file=tmp_path / "said"))
    running = asyncio.create_task(application.run())
    await lines(tmp_path / "said", 1)
    os.kill(os.getpid(), signal.SIGUSR1)
    await running
    assert (tmp_path / "said").read_text().split() == ["up", "USR1"]


async def test_stopping_what_never_ran_is_nothing():
    application = script("exit 0")
    await application.stop(0.0)
    assert application.status == 143


async def test_stdout_is_its_own():
    code = (
        "import asyncio; from services.agent.application import Application\n"
        "from windward.telemetry import logging; logging.configure('agent', 'info')\n"
        "asyncio.run(Application(['/bin/cat']).run())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await child.communicate(b"a\x00b\n")
    assert out == b"a\x00b\n"
    assert b"application.started" in err


@pytest.mark.parametrize(
    ("argv", "flags", "command"),
    [
        ([], [], []),
        (["--a", "b"], ["--a", "b"], []),
        (["--a", "--", "cmd", "--", "x"], ["--a"], ["cmd", "--", "x"]),
        (["--"], [], []),
    ],
)
def test_the_command_begins_after_the_first_dashes(argv, flags, command):
    assert split_command(argv) == (flags, command)
