"""A workload that leaves under load loses nothing; an application that the agent starts ends as it would alone."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from benchmarks.leaving import leave_in_turn, write_topology
from tests.e2e.conftest import running
from windward.local.mesh import Mesh
from windward.local.parts import STATUS_PORT

pytestmark = [pytest.mark.timeout(240)]


async def test_sigterm_of_an_agent_fails_no_request_and_no_stream(folder: Path):
    async with running(folder / "run", write_topology(folder)) as shop:
        seen = await leave_in_turn(shop.mesh, rate=200, open_streams=20, stream_s=2.0)
        assert (seen["failed_requests"], seen["failed_streams"]) == ({}, {})
        assert int(str(seen["requests"])) > 500
        await an_application_ends_as_it_would_alone(shop.mesh)
        await a_stopped_one_is_told_and_waited_for(shop.mesh)


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
    ready = f"http://{mesh.plan.place('peer-b').address}:{STATUS_PORT}/healthz/ready"
    ask = f"import urllib.request; print(urllib.request.urlopen('{ready}').status)"
    agent = await started(mesh, f'"{sys.executable}" -c "{ask}"; echo hello; exit 7')
    out, err = await agent.communicate()
    assert out == b"200\nhello\n", err.decode()
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
