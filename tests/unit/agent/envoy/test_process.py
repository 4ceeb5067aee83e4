"""Envoy as a child: its arguments, what stands in for a missing one, and its death with the agent's."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.envoy import process as module
from services.agent.envoy.process import (
    LONGEST_BACKOFF_S,
    EnvoyProcess,
    backoff_s,
    find_envoy,
    find_setpriv,
)
from tests.unit.agent.settings import settings
from windward.process import FatalError

STAND_IN = """#!/bin/sh
echo "$@" >> {folder}/arguments
cat "$2" >> {folder}/config
echo $$ >> {folder}/pids
exec sleep 600
"""


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


def supervised(program: Path, output: int = 2, **over: Any) -> EnvoyProcess:
    made = settings(**{"interception": "none"} | over)
    return EnvoyProcess(
        made, str(program), '{"node": 1}', override="{}", output=output, jitter=lambda: 0.0
    )


async def test_it_is_started_with_its_arguments_and_in_a_process_group_of_its_own(stand_in):
    envoy = supervised(stand_in)
    running = asyncio.create_task(envoy.run())
    (pid,) = await pids(stand_in, 1)
    assert pid == envoy.pid
    said = (stand_in.parent / "arguments").read_text()
    assert said.startswith("-c /dev/fd/")
    assert said.endswith("--config-yaml {}\n")
    assert os.getpgid(pid) == pid
    assert (stand_in.parent / "config").read_text() == '{"node": 1}'
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


async def test_what_it_says_goes_where_the_agent_says(stand_in):
    stand_in.write_text(
        f"#!/bin/sh\necho $$ >> {stand_in.parent}/pids\necho hello\nexec sleep 600\n"
    )
    with (stand_in.parent / "said").open("wb") as said:
        envoy = supervised(stand_in, output=said.fileno())
        running = asyncio.create_task(envoy.run())
        await pids(stand_in, 1)
        running.cancel()
        await envoy.stop()
    assert (stand_in.parent / "said").read_bytes() == b"hello\n"


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_pauses_grow_are_spread_and_have_an_end(failures, jitter):
    assert 0 < backoff_s(failures, jitter) <= LONGEST_BACKOFF_S
    assert backoff_s(failures, jitter) <= backoff_s(failures + 1, jitter)
    assert backoff_s(failures, 0.0) * 2 == pytest.approx(backoff_s(failures, 1.0))


async def test_one_that_was_steady_begins_with_short_pauses_again(stand_in, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(module, "STEADY_S", 0.0)

    def no_pause(failures: int, _: float) -> float:
        asked.append(failures)
        return 0.0

    monkeypatch.setattr(module, "backoff_s", no_pause)
    stand_in.write_text(f"#!/bin/sh\necho $$ >> {stand_in.parent}/pids\n")
    envoy = supervised(stand_in)
    running = asyncio.create_task(envoy.run())
    await pids(stand_in, 4)
    running.cancel()
    await envoy.stop()
    assert set(asked) == {0}


async def test_one_that_does_not_listen_is_killed(stand_in, monkeypatch):
    monkeypatch.setattr(module, "KILL_GRACE_S", 0.05)
    stand_in.write_text(
        f"#!{sys.executable}\nimport os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open('{stand_in.parent}/pids', 'w').write(str(os.getpid()))\nwhile True: signal.pause()\n"
    )
    envoy = supervised(stand_in)
    running = asyncio.create_task(envoy.run())
    (pid,) = await pids(stand_in, 1)
    running.cancel()
    await envoy.stop()
    assert gone(pid)


async def test_stopping_what_never_ran_is_nothing(stand_in):
    envoy = supervised(stand_in)
    await envoy.stop()
    assert envoy.pid is None


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
    stand_in.write_text(
        stand_in.read_text().replace("exec sleep", "echo opened > /dev/stdout; exec sleep")
    )
    said = (stand_in.parent / "said").open("wb")
    envoy = supervised(stand_in, said.fileno(), interception="redirect", proxy_uid=1337)
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
    said.close()
    assert (stand_in.parent / "said").read_bytes() == b"opened\n", "its user may not open stdout"


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


@pytest.mark.root
async def test_with_tproxy_it_stays_root_and_has_the_group_that_rules_let_pass(stand_in):
    folder = stand_in.parent
    stand_in.write_text(
        f"#!/bin/sh\nid -u > {folder}/ids\nid -G >> {folder}/ids\necho $$ >> {folder}/pids\nexec sleep 600\n"
    )
    envoy = supervised(stand_in, interception="tproxy", proxy_uid=1337)
    running = asyncio.create_task(envoy.run())
    await pids(stand_in, 1)
    assert (folder / "ids").read_text().split() == ["0", "1337"]
    running.cancel()
    await envoy.stop()


@pytest.mark.parametrize(
    ("user", "effective"), [(0, "000001ffffffefff"), (1000, "000001ffffffffff")]
)
def test_tproxy_without_the_right_to_it_is_refused_at_once(user, effective):
    with pytest.raises(FatalError, match="CAP_NET_ADMIN"):
        module.check_transparent(user, f"Name: x\nCapEff:\t{effective}\n")
    module.check_transparent(0, "CapEff:\t0000000000001000\n")
