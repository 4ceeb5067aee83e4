"""``windward mesh ...``: the local mesh, with a live view or a proof."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from windward.cli.failures import UserError
from windward.cli.output import print_data, print_table, say
from windward.client import context as contexts
from windward.local import network
from windward.local.addresses import Mode, mesh_id
from windward.local.mesh import Mesh
from windward.local.parts import Options
from windward.local.prove import Check
from windward.local.prove import prove as run_proof
from windward.local.ready import http_get
from windward.local.view import View, proof_table, show_mode, show_next

STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which mesh to run: the flags of ``mesh up`` and ``mesh prove``."""

    directory: Path
    topology: Path
    mode: str | None
    """None: what this machine can do."""
    interception: str
    gateway_port: int

    def mesh(self, on_change: Callable[[], None] = lambda: None) -> Mesh:
        return Mesh(
            self.directory,
            self.topology,
            mode=Mode(self.mode) if self.mode else None,
            options=Options(interception="tproxy" if self.interception == "tproxy" else "redirect"),
            gateway_port=self.gateway_port,
            on_change=on_change,
        )


def up(wanted: Wanted, *, prove: bool) -> None:
    ok = asyncio.run(_up(wanted, prove=prove))
    sys.exit(0 if ok else 1)


async def _up(wanted: Wanted, *, prove: bool) -> bool:
    stopping = _on_signals()
    console = Console(highlight=False)
    began = time.monotonic()
    view = View(console)
    view.mesh = mesh = wanted.mesh(view.refresh)
    ok = True
    try:
        with view:
            if not await _unless(stopping, mesh.up()):
                return True
        show_mode(console, mesh)
        console.print(f"up after {time.monotonic() - began:.1f} s")
        if prove:
            checks: list[Check] = []
            if not await _unless(stopping, _collect(mesh, checks)):
                return True
            console.print(proof_table(checks))
            console.print(f"proved after {time.monotonic() - began:.1f} s")
            ok = all(check.ok for check in checks)
        show_next(console, mesh)
        await stopping.wait()
    finally:
        say("stopping ...")
        await mesh.down()
        say("stopped; nothing is left behind")
    return ok


def prove(output: Path, wanted: Wanted) -> None:
    sys.exit(0 if asyncio.run(_prove(output, wanted)) else 1)


async def _prove(output: Path, wanted: Wanted) -> bool:
    stopping = _on_signals()
    console = Console(highlight=False)
    began = time.monotonic()
    mesh = wanted.mesh()
    checks: list[Check] = []
    try:
        if not await _unless(stopping, mesh.up()):
            return False
        show_mode(console, mesh)
        if not await _unless(stopping, _collect(mesh, checks)):
            return False
    finally:
        await mesh.down()
    console.print(proof_table(checks))
    console.print(f"{time.monotonic() - began:.1f} s from the command to the mesh gone again")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps([check.as_dict() for check in checks], indent=2) + "\n")
    return all(check.ok for check in checks)


async def _collect(mesh: Mesh, checks: list[Check]) -> None:
    async for check in run_proof(mesh):
        checks.append(check)


async def _unless(stopping: asyncio.Event, work: object) -> bool:
    """Do the work; False if the user asks to stop first (the work is cancelled then)."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    waiter = asyncio.create_task(stopping.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
        return False
    task.result()
    return True


def _on_signals() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def down(directory: Path) -> None:
    """Ask the process that holds the mesh's folder to stop, and wait until it has; of one that was killed, tidy up."""
    lock = directory / "lock"
    try:
        owner = int(lock.read_text())
    except (OSError, ValueError):
        owner = 0
    if not owner or not _holds(owner, lock):
        if asyncio.run(_tidy(directory)):
            say(f"no mesh runs in {directory}: what a killed one had left is removed")
            return
        raise UserError(f"no mesh runs in {directory}")
    os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while _holds(owner, lock):
        if time.monotonic() > deadline:
            raise UserError(f"process {owner} does not stop; see {directory / 'logs'}")
        time.sleep(0.1)
    say("stopped")


async def _tidy(directory: Path) -> bool:
    """Remove the network and the context file of a mesh that was killed; whether there was anything."""
    context = directory / "context.json"
    stale = context.exists()
    namespaces = (
        0 if network.unavailable() else await network.tear_down(mesh_id(directory.resolve()))
    )
    context.unlink(missing_ok=True)
    return stale or namespaces > 0


def _holds(owner: int, lock: Path) -> bool:
    """Whether a process has the lock file open: a process id alone may have been given to another."""
    folder = Path(f"/proc/{owner}/fd")
    try:
        return any(os.path.realpath(link) == str(lock.resolve()) for link in folder.iterdir())
    except OSError:
        return False


def status(output: str, context: str | None) -> None:
    where = contexts.locate(context)
    found = contexts.load(where)
    rows = asyncio.run(_ask_all(found))
    if output != "table":
        print_data(
            [dict(zip(("part", "address", "state"), row, strict=True)) for row in rows], output
        )
        return
    print_table(("PART", "ADDRESS", "STATE"), rows)


async def _ask_all(found: contexts.Context) -> list[tuple[str, str, str]]:
    parts = {name: url.removeprefix("http://") for name, url in found.metrics.items()}
    parts |= {name: f"{address}:15020" for name, address in found.workloads.items()}

    async def ask(name: str, address: str) -> tuple[str, str, str]:
        host, port = address.rsplit(":", 1)
        try:
            code, body = await http_get(host, int(port), "/healthz/ready")
        except (OSError, TimeoutError):
            return name, address, "not answering"
        return name, address, "ready" if code == 200 else body.decode(errors="replace").strip()

    return list(await asyncio.gather(*(ask(*part) for part in sorted(parts.items()))))
