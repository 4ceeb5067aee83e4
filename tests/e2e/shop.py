"""A mesh as the tests speak of it: apply this, ask that, wait until every proxy has it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Self

import grpc
import yaml
from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from windward.api.config.v1 import config_pb2
from windward.local.mesh import Mesh
from windward.local.ready import http_get
from windward.local.topology import config_files

ROOT = Path(__file__).resolve().parents[2]
BOOKSHOP = ROOT / "samples" / "bookshop" / "topology.yaml"
DEADLINE_S = 20.0


@dataclass
class Answer:
    status: int
    body: bytes
    elapsed_s: float

    @property
    def json(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.body)
        return loaded


@dataclass
class Load:
    """What a run of requests at a steady rate brought."""

    statuses: Counter[int] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        return sum(self.errors.values()) + sum(
            n for status, n in self.statuses.items() if status != 200
        )


class Shop:
    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._session: ClientSession | None = None

    # ---- configuration ----------------------------------------------------------------------------------------------

    async def apply(self, text: str) -> config_pb2.ApplyResponse:
        """Apply YAML and wait until every proxy has accepted it."""
        response = await self.mesh.administrator.apply_text(text)
        await self.in_force(response.revision)
        return response

    async def apply_until_stored(self, text: str) -> config_pb2.ApplyResponse:
        """Apply, again and again while the control plane is away."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    return await self.mesh.administrator.apply_text(text)
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.2)

    async def restore(self) -> None:
        """The Bookshop's own configuration, and nothing else."""
        wanted = {}
        for file in config_files(self.mesh.topology_file, self.mesh.topology):
            for document in yaml.safe_load_all(file.read_text()):
                wanted[document["kind"], document["metadata"]["name"]] = document
        stored = await self.mesh.administrator.list()
        extra = [item.ref for item in stored if (item.ref.kind, item.ref.name) not in wanted]
        if extra:
            await self.mesh.administrator.delete(extra)
        await self.apply(yaml.safe_dump_all(list(wanted.values())))

    async def in_force(self, revision: int) -> None:
        """Wait until every proxy has ACKed what this revision made of its configuration."""

        async def done() -> bool:
            proxies = await self.mesh.administrator.proxies()
            return len(proxies) == len(self.mesh.topology.names) and all(
                kind.state == "SYNCED" and kind.acked_revision >= revision
                for proxy in proxies
                for kind in proxy.types.values()
            )

        await until(done, f"every proxy at revision {revision}")

    # ---- requests ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._session = ClientSession(
            timeout=ClientTimeout(total=15), connector=TCPConnector(limit=64, force_close=False)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()
        self._session = None

    async def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """One request through the gateway."""
        assert self._session is not None, "use `async with shop:`"
        began = monotonic()
        async with self._session.get(
            self.mesh.gateway_url + path, headers=headers or {}
        ) as response:
            return Answer(response.status, await response.read(), monotonic() - began)

    async def get_many(
        self, count: int, path: str, headers: dict[str, str] | None = None, lanes: int = 8
    ) -> list[Answer]:
        answers: list[Answer] = []
        numbers = iter(range(count))

        async def lane() -> None:
            for _ in numbers:
                answers.append(await self.get(path, headers))

        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(lane())
        return answers

    async def load(self, path: str, rate: float, stop: asyncio.Event) -> Load:
        """Requests at a steady rate (open loop) until told to stop; all of them awaited."""
        result = Load()

        async def one() -> None:
            try:
                answer = await self.get(path)
            except (ClientError, OSError, TimeoutError) as error:
                result.errors[f"{type(error).__name__}: {error}"] += 1
                return
            result.statuses[answer.status] += 1
            if answer.status == 200:
                result.versions[str(answer.json.get("version"))] += 1

        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                due = int((loop.time() - began) * rate) + 1
                for _ in range(min(due - sent, 64)):
                    group.create_task(one())
                    sent += 1
                try:
                    async with asyncio.timeout(1 / rate):
                        await stop.wait()
                except TimeoutError:
                    continue
        return result

    # ---- Envoy --------------------------------------------------------------------------------------------------------

    async def admin(self, workload: str, path: str) -> str:
        """A workload's Envoy admin interface, from within its network namespace."""
        place = self.mesh.plan.place(workload)
        host, port = self.mesh.specs.admin_address(place)
        enter = ("ip", "netns", "exec", place.namespace) if place.namespace else ()
        command = (*enter, "curl", "-sg", "-m", "5", f"http://{host}:{port}{path}")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return said.decode()

    async def endpoint_health(self, workload: str, service: str) -> dict[str, str]:
        """Address -> EDS health, as one Envoy sees a service."""
        dumped = json.loads(await self.admin(workload, "/clusters?format=json"))
        return {
            host["address"]["socket_address"]["address"]: host["health_status"].get(
                "eds_health_status", "HEALTHY"
            )
            for cluster in dumped["cluster_statuses"]
            if cluster["name"].startswith("outbound|9080||" + service)
            for host in cluster.get("host_statuses", [])
        }

    async def attempts(self, workload: str, peer: str) -> int:
        """Requests that one Envoy has sent to a peer."""
        address = self.mesh.plan.place(peer).address
        dumped = json.loads(await self.admin(workload, "/clusters?format=json"))
        return sum(
            int(stat.get("value", 0))
            for cluster in dumped["cluster_statuses"]
            for host in cluster.get("host_statuses", [])
            if host["address"].get("socket_address", {}).get("address") == address
            for stat in host["stats"]
            if stat["name"] == "rq_total"
        )

    async def certificate_serial(self, workload: str) -> str:
        dumped = json.loads(await self.admin(workload, "/certs"))
        return str(dumped["certificates"][0]["cert_chain"][0]["serial_number"])

    # ---- metrics ----------------------------------------------------------------------------------------------------

    async def metric(self, part: str, name: str, **labels: str) -> float:
        """Sum of a metric's series that carry these labels, at Mixer's, Pilot's or Citadel's /metrics."""
        ports = self.mesh.specs.ports
        port = {
            "mixer": ports.mixer_metrics,
            "pilot": ports.pilot_metrics,
            "citadel": ports.citadel_metrics,
        }[part]
        _, body = await http_get("127.0.0.1", port, "/metrics", timeout_s=5)
        total = 0.0
        for line in body.decode().splitlines():
            if line.startswith((name + "{", name + " ")) and all(
                f'{key}="{value}"' in line for key, value in labels.items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total


async def until(condition: Any, what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll an async condition until it holds; fail with what was awaited."""
    async with asyncio.timeout(deadline_s):
        try:
            while not await condition():
                await asyncio.sleep(0.05)
        except (TimeoutError, asyncio.CancelledError) as error:
            raise AssertionError(f"waited {deadline_s} s for {what}") from error
