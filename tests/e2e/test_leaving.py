"""Workloads that leave under load lose nothing; what peers hear of who comes back; an application ends as it would alone."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from benchmarks.leaving import back, leave, leave_in_turn, write_topology
from tests.e2e.conftest import running
from windward.cli.debug import read
from windward.local.child import Child
from windward.local.mesh import Mesh
from windward.local.parts import STATUS_PORT

pytestmark = [pytest.mark.timeout(240)]


async def test_sigterm_of_an_agent_fails_no_request_and_no_stream(folder: Path):
    async with running(folder / "run", write_topology(folder)) as shop:
        seen = await leave_in_turn(shop.mesh, rate=200, open_streams=20, stream_s=2.0)
        assert (seen["failed_requests"], seen["failed_streams"]) == ({}, {})
        assert int(str(seen["requests"])) > 500
        await what_peers_are_told_of_a_restart(shop.mesh)
        await an_application_ends_as_it_would_alone(shop.mesh)
        await a_stopped_one_is_told_and_waited_for(shop.mesh)


async def what_peers_are_told_of_a_restart(mesh: Mesh) -> None:
    """Within its lease, after a crash: nothing. After a clean leave it is a new one, unhealthy until it serves."""
    child = mesh.parts["peer-a"].child
    assert child is not None
    mark = mesh.directory / "state" / "peer-a" / "left"

    before = await changes_of(mesh, "peer-a")
    child.kill()
    while child.pid is not None:
        await asyncio.sleep(0.01)
    assert not mark.exists()
    await back(mesh, "peer-a")
    assert registered_as(child) == [True]
    assert await changes_of(mesh, "peer-a") == before

    await leave(mesh, "peer-a")
    assert mark.exists()
    await back(mesh, "peer-a")
    assert not mark.exists()
    assert registered_as(child) == [False, True]
    gone, unhealthy, healthy = (await changes_of(mesh, "peer-a"))[len(before) :]
    assert gone < unhealthy < healthy


async def changes_of(mesh: Mesh, name: str) -> list[str]:
    """When Pilot's pushes that this workload caused were, as `windward debug events` has them, oldest first."""
    answer = await asyncio.to_thread(read, "events", {}, 1000, str(mesh.context_file))
    return sorted(row["at"] for row in answer.rows if f"workload bookshop/{name} " in row["text"])


def registered_as(child: Child) -> list[bool]:
    """Healthy or not: what the agent that runs now has said of itself, until it was ready."""
    lines = [json.loads(x) for x in child.spec.log.read_text().splitlines() if x.startswith("{")]
    events = [line["event"] for line in lines]
    assert "last_good.loaded" in events, "it did not resume"
    at = len(events) - 1 - events[::-1].index("last_good.loaded")
    return [line["healthy"] for line in lines[at:] if line["event"] == "workload.registered"]


async def started(mesh: Mesh, script: str) -> asyncio.subprocess.Process:
    """``windward-agent run -- sh -c SCRIPT`` in the place of one of the mesh's sidecars."""
    child = mesh.parts["peer-b"].child
    assert child is not None
    await child.stop()
    argv = list(child.spec.argv())
    at = argv.index("services.agent.main") + 1
    return await asyncio.create_subprocess_exec(
        *argv[:at], "run", *argv[at:], "--", "/bin/sh", "-c", script,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def an_application_ends_as_it_would_alone(mesh: Mesh) -> None:
    """A job: it starts when the sidecar can serve, stdout is its own, and its end is the agent's."""
    address = mesh.plan.place("peer-b").address
    urls = (
        f"http://{address}:{STATUS_PORT}/healthz/ready",
        f"http://127.0.0.1:{STATUS_PORT}/debug/config",
    )
    ask = f"import urllib.request as r; print(*(r.urlopen(u).status for u in {urls}))"
    wait = "from services.agent.commands import main; main()"
    python = f'"{sys.executable}" -c'
    agent = await started(
        mesh,
        f"""{python} "{ask}"; {python} "{wait}" wait --timeout-s 5 && echo hello; exit 7""",
    )
    out, err = await agent.communicate()
    assert out == b"200 200\nhello\n", err.decode()
    assert agent.returncode == 7, err.decode()
    said = err.decode()
    assert said.index("workload.registered") < said.index("application.started")


async def a_stopped_one_is_told_and_waited_for(mesh: Mesh) -> None:
    agent = await started(
        mesh, "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    )
    assert agent.stdout is not None
    assert await agent.stdout.readline() == b"up\n"
    agent.send_signal(signal.SIGTERM)
    out, err = await agent.communicate()
    assert (out, agent.returncode) == (b"told\n", 3), err.decode()
