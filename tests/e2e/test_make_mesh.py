"""``make mesh`` as a user runs it: twice, with a Ctrl-C each time, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.shop import ROOT, until
from windward.local.addresses import mesh_id

pytestmark = pytest.mark.timeout(180)
READY = "Ctrl-C stops all of it."


async def start(directory: Path, *arguments: str) -> tuple[asyncio.subprocess.Process, str]:
    """Start a mesh and wait until it says that it is ready; the process, and everything it said."""
    program = str(ROOT / ".venv/bin/windward")
    command = [program, "mesh", "up", "--directory", str(directory), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(80):
        while READY not in said:
            line = await process.stdout.readline()
            assert line, said
            said += line.decode()
    return process, said


async def interrupt(process: asyncio.subprocess.Process) -> str:
    """Press Ctrl-C and wait for a good end; the rest of what it said."""
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, rest.decode()
    return rest.decode()


def leftovers(directory: Path) -> list[str]:
    """Processes, namespaces and links of a mesh that is down."""
    identifier = mesh_id(directory)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if str(directory) in command and state != "Z":
                found.append(command)
    for folder in (Path("/run/netns"), Path("/sys/class/net")):
        if folder.is_dir():
            found += [path.name for path in folder.iterdir() if identifier in path.name]
    return found


async def test_twice_and_nothing_is_left(folder: Path):
    """By REDIRECT, then, where something can be intercepted, by TPROXY."""
    directory = folder / "mesh"
    for mode in ("redirect", "tproxy" if os.geteuid() == 0 else "redirect"):
        process, said = await start(directory, "--gateway-port", "0", "--interception", mode)
        said += await interrupt(process)
        assert "✘" not in said
        assert said.count("✔") >= 7
        proved = "applications see their" in said
        assert (proved, "(TPROXY)" in said) == (mode == "tproxy",) * 2
        assert leftovers(directory) == []
    assert not (directory / "context.json").exists()


async def killed(directory: Path) -> None:
    """A mesh that came up and was killed: its parts go with it, its network stays."""
    process, _ = await start(directory, "--gateway-port", "0", "--no-prove")
    process.kill()
    await process.communicate()

    async def only_network() -> bool:
        return not any(str(directory) in item for item in leftovers(directory))

    await until(only_network, "the kernel to kill the parts with their mesh")
    assert leftovers(directory)


@pytest.mark.root
async def test_what_a_killed_mesh_left_is_in_nobodys_way_and_goes_with_down(folder: Path):
    directory = folder / "mesh"
    await killed(directory)
    await killed(directory)
    command = [str(ROOT / ".venv/bin/windward"), "mesh", "down", "--directory", str(directory)]
    down = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=subprocess.PIPE)
    _, said = await asyncio.wait_for(down.communicate(), 30)
    assert (down.returncode, b"killed" in said) == (0, True)
    assert leftovers(directory) == []
    assert not (directory / "context.json").exists()


async def test_a_second_mesh_in_the_same_folder_is_refused_in_one_line(folder: Path):
    directory = folder / "mesh"
    first, _ = await start(directory, "--mode", "loopback", "--gateway-port", "0", "--no-prove")
    command = [str(ROOT / ".venv/bin/windward"), "mesh", "up", "--directory", str(directory)]
    second = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    _, said = await asyncio.wait_for(second.communicate(), 30)
    assert second.returncode == 1
    assert b"a mesh already runs in" in said
    await interrupt(first)
