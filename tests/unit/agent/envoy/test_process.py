"""Envoy as a child: its arguments, what stands in for a missing one, and its death with the agent's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from services.agent.envoy import process as module
from services.agent.envoy.admin import Admin
from services.agent.envoy.process import EnvoyProcess, arguments, find_envoy, find_setpriv
from tests.unit.agent.settings import settings
from windward.process import FatalError

STAND_IN = """#!/bin/sh
echo "$@" >> {folder}/arguments
echo $$ >> {folder}/pids
exec sleep 600
"""


class FakeAdmin(Admin):
    """An admin interface with connections that end one by one."""

    def __init__(self, connections: int = 0) -> None:
        super().__init__("127.0.0.1:1")
        self.connections = connections
        self.posted: list[str] = []

    async def post(self, path: str) -> tuple[int, bytes]:
        self.posted.append(path)
        return 200, b""

    async def active_connections(self) -> int:
        self.connections -= 1
        return max(self.connections, 0)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program in Envoy's place that notes its arguments and its pid, and stays."""
    program = tmp_path / "envoy"
    program.write_text(STAND_IN.format(folder=tmp_path))
    program.chmod(0o755)
    return program


async def pids(program: Path, count: int) -> list[int]:
    """The pids of the first ``count`` starts, waited for."""
    file = program.parent / "pids"
    while not file.exists() or len(file.read_text().split()) < count:
        await asyncio.sleep(0.01)
    return [int(text) for text in file.read_text().split()]


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def supervised(program: Path, admin: Admin | None = None, **over: Any) -> EnvoyProcess:
    made = settings(**{"interception": "none"} | over)
    return EnvoyProcess(made, str(program), "{}", admin or FakeAdmin())


async def test_it_is_started_with_the_bootstrap_as_text(stand_in):
    envoy = supervised(stand_in)
    running = asyncio.create_task(envoy.run())
    assert await pids(stand_in, 1) == [envoy.pid]
    said = (stand_in.parent / "arguments").read_text()
    assert said.startswith("--config-yaml {} ")
    running.cancel()
    await envoy.stop()
    assert envoy.pid is None


async def test_it_is_started_again_when_it_dies(stand_in, monkeypatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 0.01)
    envoy = supervised(stand_in)
    running = asyncio.create_task(envoy.run())
    (first,) = await pids(stand_in, 1)
    os.kill(first, signal.SIGKILL)
    _, second = await pids(stand_in, 2)
    assert second != first
    assert envoy.pid == second
    assert envoy.restarts == 1
    running.cancel()
    await envoy.stop()


async def test_it_is_drained_before_it_is_ended(stand_in):
    admin = FakeAdmin(connections=3)
    envoy = supervised(stand_in, admin)
    running = asyncio.create_task(envoy.run())
    (pid,) = await pids(stand_in, 1)
    running.cancel()
    await envoy.stop()
    assert admin.posted == ["/drain_listeners?inboundonly&graceful"]
    assert admin.connections == 0
    assert gone(pid)


async def test_connections_that_stay_do_not_keep_it_past_the_deadline(stand_in):
    admin = FakeAdmin(connections=10**9)
    envoy = supervised(stand_in, admin, drain_time=0.2)
    running = asyncio.create_task(envoy.run())
    (pid,) = await pids(stand_in, 1)
    running.cancel()
    await envoy.stop()
    assert gone(pid)


async def test_one_that_does_not_listen_is_killed(stand_in, monkeypatch):
    monkeypatch.setattr(module, "KILL_GRACE_S", 0.05)
    stand_in.write_text(
        f"#!{sys.executable}\nimport os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open('{stand_in.parent}/pids', 'w').write(str(os.getpid()))\nwhile True: signal.pause()\n"
    )
    envoy = supervised(stand_in, Admin("127.0.0.1:1"))
    running = asyncio.create_task(envoy.run())
    (pid,) = await pids(stand_in, 1)
    running.cancel()
    await envoy.stop()
    assert gone(pid)


async def test_stopping_what_never_ran_is_nothing(stand_in):
    admin = FakeAdmin()
    await supervised(stand_in, admin).stop()
    assert admin.posted == []


async def test_a_killed_agent_takes_it_along(stand_in):
    """The kernel does it: nothing of the agent is left to do so."""
    code = (
        "import asyncio, sys\n"
        "from tests.unit.agent.envoy.test_process import supervised\n"
        "from pathlib import Path\n"
        "asyncio.run(supervised(Path(sys.argv[1])).run())\n"
    )
    agent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(stand_in), stderr=asyncio.subprocess.DEVNULL
    )
    (pid,) = await pids(stand_in, 1)
    assert not gone(pid)
    agent.kill()
    await agent.wait()
    while not gone(pid):
        await asyncio.sleep(0.01)


@pytest.mark.root
async def test_with_interception_root_gives_up_its_rights(stand_in):
    stand_in.parent.chmod(0o777)
    for folder in [*stand_in.parents][1:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    envoy = supervised(stand_in, interception="redirect", proxy_uid=1337)
    running = asyncio.create_task(envoy.run())
    (pid,) = await pids(stand_in, 1)
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == ["1337"] * 4
    assert fields["Gid"].split() == ["1337"] * 4
    assert fields["Groups"].split() == []
    assert int(fields["CapEff"], 16) == 0
    running.cancel()
    await envoy.stop()


async def test_a_binary_that_cannot_be_read_is_one_line(tmp_path):
    missing = tmp_path / "none"
    with pytest.raises(FatalError, match=f"Envoy cannot be started .{missing}.: No such file"):
        await supervised(missing).run()


def test_the_wheels_binary_is_no_script():
    found = Path(find_envoy(""))
    assert found.read_bytes()[:4] == b"\x7fELF"


def test_another_binary_must_be_a_program(tmp_path, stand_in):
    assert find_envoy(str(stand_in)) == str(stand_in)
    text = tmp_path / "text"
    text.write_text("no program")
    for wrong in (text, tmp_path / "none"):
        with pytest.raises(FatalError, match=f"--envoy-binary {wrong}: not an executable file"):
            find_envoy(str(wrong))


def test_without_setpriv_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FatalError, match="install util-linux"):
        find_setpriv()


@pytest.mark.parametrize(
    ("over", "pair"),
    [
        ({}, ("--local-address-ip-version", "v4")),
        ({"address": "fd00::7"}, ("--local-address-ip-version", "v6")),
        ({"drain_time": 45.0}, ("--drain-time-s", "45")),
        ({"drain_time": 0.2}, ("--drain-time-s", "1")),
        ({"concurrency": 4}, ("--concurrency", "4")),
        ({}, ("--drain-strategy", "immediate")),
    ],
)
def test_arguments(over, pair):
    made = arguments("{}", settings(**over))
    assert (pair[0], made[made.index(pair[0]) + 1]) == pair
    assert "--disable-hot-restart" in made
