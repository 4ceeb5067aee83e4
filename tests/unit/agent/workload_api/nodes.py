"""A node agent in this process, beside a Citadel in this process: real sockets, real certificates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.agent.workload_api import node
from services.agent.workload_api.node import Settings
from services.citadel.authn import tokens
from tests.unit.citadel.running import Running
from windward.identity.spiffe_id import workload_id
from windward.process import Lifecycle

START_S = 20.0


@dataclass(frozen=True, slots=True)
class RunningNode:
    socket: Path
    status_port: int
    state: Path


async def token_for(running: Running, account: str, file: Path, namespace: str = "shop") -> None:
    """A join token for one identity, in a file of its own."""
    made = await tokens.create(
        running.store, workload_id("cluster.local", namespace, account), 600, 1
    )
    file.touch(mode=0o600)
    file.write_text(made.secret)


def entry(account: str, file: Path, uid: int, **selectors: Any) -> dict[str, Any]:
    return {
        "namespace": "shop",
        "serviceAccount": account,
        "tokenFile": str(file),
        "uid": uid,
        **selectors,
    }


@asynccontextmanager
async def running_node(
    running: Running, entries: list[dict[str, Any]], *, all_ready: bool = True, **settings: Any
) -> AsyncIterator[RunningNode]:
    """Serves until the block ends; with ``all_ready`` only once every identity has its certificate."""
    base = running.base / "node"
    base.mkdir(exist_ok=True)
    file, ports = base / "entries.json", base / "ports"
    file.write_text(json.dumps({"entries": entries}))
    ports.unlink(missing_ok=True)
    lifecycle = Lifecycle(str(ports))
    chosen = Settings(
        entries_file=str(file),
        citadel_address=running.address("tls"),
        citadel_mtls_address=running.address("mtls"),
        trust_bundle_file=str(running.bootstrap / "root-cert.pem"),
        state_dir=str(base / "state"),
        workload_api_socket=str(base / "api.sock"),
        status_address="127.0.0.1:0",
        **settings,
    )
    serving = asyncio.create_task(node.serve(chosen, lifecycle))
    try:
        async with asyncio.timeout(START_S):
            while not ports.exists() and not serving.done():
                await asyncio.sleep(0.01)
            if serving.done():
                await serving
            started = RunningNode(
                base / "api.sock", json.loads(ports.read_bytes())["status"], base / "state"
            )
            while all_ready and not _all_served(started, entries):
                await asyncio.sleep(0.01)
        yield started
    finally:
        lifecycle.stopping.set()
        async with asyncio.timeout(START_S):
            await asyncio.gather(serving, return_exceptions=True)


def _all_served(started: RunningNode, entries: list[dict[str, Any]]) -> bool:
    served = {each["serviceAccount"] for each in entries}
    sockets = set((started.state / "workload-api").glob("*.sock"))
    return len(sockets) == len(served) + 1
