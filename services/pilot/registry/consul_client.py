"""Following a Consul server: the catalog and each of its services by a blocking query, merged into batches.

    one task a question, one question a task -> answers in the order they come -> RegistryBatch

A question that fails is asked again later and later (1 s to 30 s, jittered); meanwhile what was known stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from services.pilot import metrics
from services.pilot.registry.consul import (
    SOURCE,
    BlockingQuery,
    Instance,
    read_catalog,
    read_instances,
    service_entry,
)
from services.pilot.registry.protocol import RegistryBatch
from windward.config.object import ConfigObject, ObjectKey
from windward.telemetry.logging import get_logger

if TYPE_CHECKING:
    from aiohttp import ClientSession

log = get_logger()
WAIT_S = 60.0
SLACK_S = 10.0
"""Consul adds up to a sixteenth of the wait, so that questions do not come in step."""
RETRY_LEAST_S = 1.0
RETRY_MOST_S = 30.0
DOUBT_S = 15.0
ANEW_S = 1.0
"""Between questions that do not block."""
PACE_S = 0.05
"""Between questions that do: nothing is missed meanwhile, and a service that changes all the time is asked 20 times a second."""
MOST_SERVICES = 2000
LARGEST_BYTES = 16 * 1024 * 1024
CATALOG = ""
"""Stands for the catalog among names of services."""


class QueryFailed(Exception):
    """No answer that can be used; says why."""


@dataclass(frozen=True, slots=True)
class Consul:
    """Where and as whom to ask."""

    url: str
    datacenter: str = ""
    token: Callable[[], str] = str
    """Read at every question: it may be renewed."""
    wait_s: float = WAIT_S
    retry_s: float = RETRY_LEAST_S
    doubt_s: float = DOUBT_S


class ConsulRegistry:
    def __init__(self, consul: Consul, random: Callable[[], float]) -> None:
        """``random``: 0 to 1."""
        self.name = f"{SOURCE}:{consul.url}" + (
            f"?dc={consul.datacenter}" if consul.datacenter else ""
        )
        self._consul = consul
        self._random = random
        self._problems: dict[str, tuple[str, ...]] = {}

    async def batches(self) -> AsyncGenerator[RegistryBatch, None]:
        from aiohttp import ClientSession, ClientTimeout, TCPConnector

        state = _Following(self, self._consul.doubt_s)
        timeout = ClientTimeout(total=self._consul.wait_s * 17 / 16 + SLACK_S, sock_connect=5)
        async with ClientSession(timeout=timeout, connector=TCPConnector(limit=0)) as session:
            pending: dict[asyncio.Task[bytes], tuple[str, BlockingQuery]] = {}

            def ask(name: str, pause_s: float) -> None:
                query = state.queries[name]
                task = asyncio.ensure_future(self._ask(session, query, pause_s))
                pending[task] = (name, query)

            ask(CATALOG, 0.0)
            try:
                while True:
                    done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        name, query = pending.pop(task)
                        if state.queries.get(name) is query:
                            ask(name, state.take(name, task))
                    for name in state.new():
                        ask(name, 0.0)
                    for task, (name, query) in pending.items():
                        if state.queries.get(name) is not query:
                            task.cancel()
                    if batch := state.batch():
                        yield batch
            finally:
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)

    async def _ask(self, session: ClientSession, query: BlockingQuery, pause_s: float) -> bytes:
        """One answer's body. Raises QueryFailed."""
        from aiohttp import ClientError

        if pause_s:
            await asyncio.sleep(pause_s * (0.75 + 0.5 * self._random()))
        consul = self._consul
        parameters = dict(query.parameters(consul.wait_s))
        if consul.datacenter:
            parameters["dc"] = consul.datacenter
        if query.path.startswith("/v1/health"):
            parameters["passing"] = "1"
        try:
            token = consul.token()
            headers = {"X-Consul-Token": token} if token else {}
            async with session.get(
                consul.url + query.path, params=parameters, headers=headers, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise QueryFailed(f"{query.path}: status {response.status}")
                body = await _limited(response.content)
                query.answered(_index(response.headers), asyncio.get_running_loop().time())
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise QueryFailed(f"{query.path}: {why}") from error
        return body

    def report(self, name: str, problems: tuple[str, ...]) -> None:
        """Each once, as long as it lasts."""
        before = self._problems.get(name, ())
        for problem in problems:
            if problem not in before:
                log.warning("registry.problem", registry=self.name, reason=problem)
        self._problems[name] = problems
        if not problems:
            del self._problems[name]
        metrics.REGISTRY_PROBLEMS.labels(self.name).set(sum(map(len, self._problems.values())))

    def forget(self, name: str) -> None:
        """A service that is no more has no problems."""
        self.report(name, ())
        self.report(f"asking {name}", ())

    def answers(self, *, up: bool) -> None:
        metrics.REGISTRY_UP.labels(self.name).set(up)

    def retry_s(self, failures: int) -> float:
        return min(self._consul.retry_s * float(2 ** min(failures - 1, 10)), RETRY_MOST_S)

    @property
    def datacenter(self) -> str:
        return self._consul.datacenter


class _Following:
    """What is known of one Consul, and what is to be asked."""

    def __init__(self, registry: ConsulRegistry, doubt_s: float) -> None:
        self._registry = registry
        self._doubt_s = doubt_s
        self.queries = {CATALOG: BlockingQuery("/v1/catalog/services", doubt_s)}
        self._instances: dict[str, tuple[Instance, ...]] = {}
        self._unanswered: set[str] = {CATALOG}
        """Not answered yet, or failed, the first time: the first batch waits for the rest."""
        self._new: list[str] = []
        self._told: dict[ObjectKey, ConfigObject[Any]] = {}
        self._made: dict[str, ConfigObject[Any]] = {}
        self._whole = True

    def take(self, name: str, task: asyncio.Task[bytes]) -> float:
        """An answer, or a failure; the pause before the same question is asked again."""
        query = self.queries[name]
        now_s = asyncio.get_running_loop().time()
        asking = f"asking {name}" if name else "asking the catalog"
        try:
            body = task.result()
            read = self._catalog if name == CATALOG else self._health
            believed = read(name, body, now_s)
        except (QueryFailed, msgspec.DecodeError) as error:
            query.failed(now_s)
            self._registry.answers(up=False)
            self._registry.report(asking, (str(error),))
            if name != CATALOG:
                self._unanswered.discard(name)
            return self._registry.retry_s(query.failures)
        self._registry.answers(up=True)
        self._registry.report(asking, ())
        if believed:
            self._unanswered.discard(name)
        # A server that gives no index does not block either.
        return PACE_S if believed and query.index else ANEW_S

    def _catalog(self, name: str, body: bytes, now_s: float) -> bool:
        """Take over the names of services, if they are believed."""
        found = read_catalog(body)
        if len(found) > MOST_SERVICES:
            problem = f"has {len(found)} services: the first {MOST_SERVICES} are taken"
            self._registry.report("catalog", (problem,))
            found = frozenset(sorted(found)[:MOST_SERVICES])
        else:
            self._registry.report("catalog", ())
        known = self.queries.keys() - {CATALOG}
        gone = known - found
        if self.queries[name].doubts(len(gone), now_s):
            return False
        for service in gone:
            del self.queries[service]
            self._instances.pop(service, None)
            self._made.pop(service, None)
            self._unanswered.discard(service)
            self._registry.forget(service)
        for service in sorted(found - known):
            path = f"/v1/health/service/{quote(service, safe='')}"
            self.queries[service] = BlockingQuery(path, self._doubt_s)
            self._unanswered.add(service)
            self._new.append(service)
        return True

    def _health(self, name: str, body: bytes, now_s: float) -> bool:
        found = read_instances(body)
        known = self._instances.get(name, ())
        if self.queries[name].doubts(len(known) - len(found), now_s):
            return False
        self._instances[name] = found
        made, problems = service_entry(name, found, self._registry.datacenter)
        self._registry.report(name, problems)
        if made is None:
            self._made.pop(name, None)
        else:
            self._made[name] = made
        return True

    def new(self) -> list[str]:
        """Services of which nobody has asked yet."""
        new, self._new = self._new, []
        return [name for name in new if name in self.queries]

    def batch(self) -> RegistryBatch | None:
        """What is different since the last batch; None: nothing, or not all of the first one is there yet."""
        if self._whole and self._unanswered:
            return None
        now = {item.key: item for item in self._made.values()}
        upserts = tuple(item for key, item in now.items() if self._told.get(key) != item)
        removed = tuple(key for key in self._told if key not in now)
        if not (upserts or removed or self._whole):
            return None
        batch = RegistryBatch(upserts, removed, self._whole)
        self._told, self._whole = now, False
        return batch


async def _limited(stream: Any) -> bytes:
    body = bytearray()
    async for chunk in stream.iter_chunked(65536):
        body += chunk
        if len(body) > LARGEST_BYTES:
            raise QueryFailed(f"answers more than {LARGEST_BYTES // 1024 // 1024} MiB")
    return bytes(body)


def _index(headers: Mapping[str, str]) -> int:
    text = headers.get("X-Consul-Index", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
