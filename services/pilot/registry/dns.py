"""The DNS registry: a name is a service, and what DNS says about it are its endpoints.

    _http._tcp.web.example.com   SRV -> targets -> A, AAAA     service web.example.com
    db.example.com:5432          A, AAAA                       service db.example.com

Asked again when the shortest TTL has run out (5 s to 5 min, a tenth of it more or less, so that replicas do not ask in step).
What cannot be looked up stays as it was said last; that a name does not exist is an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from services.pilot import metrics
from services.pilot.registry.protocol import RegistryBatch, decode_found
from services.pilot.registry.resolver import Answer, LookupFailed, Resolver
from windward.telemetry.logging import get_logger

log = get_logger()
SOURCE = "dns"
LEAST_S = 5.0
MOST_S = 300.0
RETRY_LEAST_S = 1.0
RETRY_MOST_S = 30.0
MOST_TARGETS = 64
PROTOCOLS = {"http": "HTTP", "https": "HTTPS", "grpc": "GRPC", "h2c": "HTTP2", "http2": "HTTP2"}
"""Of an SRV name's first label; others are TCP."""


Question = tuple[str, str]
"""(name, type)."""


@dataclass(frozen=True, slots=True)
class DnsName:
    """What is asked for. ``port`` 0: the lowest that SRV names."""

    name: str
    port: int = 0
    protocol: str = "TCP"

    @property
    def is_srv(self) -> bool:
        return self.name.startswith("_")

    @property
    def host(self) -> str:
        """The service's host: an SRV name without its service and protocol."""
        return self.name.split(".", 2)[2] if self.is_srv else self.name


@dataclass(frozen=True, slots=True, order=True)
class Target:
    address: str
    port: int
    weight: int = 1


def service_entry(wanted: DnsName, targets: Iterable[Target]) -> dict[str, Any]:
    """The object as a user would write it."""
    found = sorted(targets)
    number = wanted.port or min((item.port for item in found), default=80)
    name = wanted.protocol.lower()
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": wanted.host.lower(), "namespace": SOURCE},
        "spec": {
            "hosts": [wanted.host],
            "ports": [{"number": number, "name": name, "protocol": wanted.protocol}],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "endpoints": [
                {"address": item.address, "ports": {name: item.port}, "weight": item.weight}
                for item in found
            ],
        },
    }


class Lookup:
    """One name's endpoints. What a question was answered last stands in where it is not answered now."""

    def __init__(self, wanted: DnsName, resolver: Resolver) -> None:
        self._wanted = wanted
        self._resolver = resolver
        self._last: dict[Question, Answer] = {}
        self._asked: set[Question] = set()
        self.problem = ""

    async def targets(self) -> tuple[frozenset[Target], float]:
        """(endpoints, seconds until they should be asked for again). Raises LookupFailed when nothing is known."""
        self.problem = ""
        self._asked.clear()
        found = await self._look()
        # Targets come and go: what nobody asks about any more is forgotten.
        self._last = {
            question: self._last[question] for question in self._asked & self._last.keys()
        }
        return found

    async def _look(self) -> tuple[frozenset[Target], float]:
        if not self._wanted.is_srv:
            addresses, ttl_s = await self._addresses(self._wanted.name)
            return frozenset(Target(item, self._wanted.port) for item in addresses), ttl_s
        answer = await self._ask(self._wanted.name, "SRV")
        records = sorted(record.data for record in answer.records)[:MOST_TARGETS]
        # The lowest priority number is to be used; others are for when it cannot be reached (RFC 2782).
        best = [item for item in records if item[0] == records[0][0] and item[3]]
        found: set[Target] = set()
        ttl_s = answer.ttl_s
        for _, weight, port, target in best:
            addresses, its_ttl_s = await self._addresses(target)
            found |= {Target(item, port, weight or 1) for item in addresses}
            ttl_s = min(ttl_s, its_ttl_s)
        return frozenset(found), ttl_s

    async def _addresses(self, name: str) -> tuple[list[str], float]:
        """Of both families. One that cannot be asked for does not take the other one along."""
        four = await self._ask(name, "A")
        try:
            six = await self._ask(name, "AAAA")
        except LookupFailed as error:
            if not four.records:
                raise
            self.problem = str(error)
            six = Answer((), four.ttl_s)
        return [item.data for item in (*four.records, *six.records)], min(four.ttl_s, six.ttl_s)

    async def _ask(self, name: str, kind: str) -> Answer:
        self._asked.add((name, kind))
        try:
            answer = await self._resolver.query(name, kind)
        except LookupFailed as error:
            known = self._last.get((name, kind))
            if known is None:
                raise
            self.problem = f"{kind} {name}: {error}"
            return known
        self._last[name, kind] = answer
        return answer


class DnsRegistry:
    def __init__(
        self,
        wanted: DnsName,
        resolver: Resolver,
        random: Callable[[], float],
    ) -> None:
        """``random``: 0 to 1."""
        self.name = f"{SOURCE}:{wanted.name}"
        self._wanted = wanted
        self._lookup = Lookup(wanted, resolver)
        self._random = random
        self._problem = ""

    async def batches(self) -> AsyncGenerator[RegistryBatch, None]:
        told: frozenset[Target] | None = None
        failures = 0
        while True:
            targets, ttl_s = told, LEAST_S
            try:
                targets, ttl_s = await self._lookup.targets()
                problem = self._lookup.problem
            except LookupFailed as error:
                problem = str(error)
            self._report(problem)
            failures = failures + 1 if problem else 0
            if targets is not None and targets != told:
                made, findings = decode_found(SOURCE, service_entry(self._wanted, targets))
                if made is None:
                    self._report("; ".join(f"{item.path}: {item.message}" for item in findings))
                else:
                    yield RegistryBatch((made,), whole=told is None)
                    told = targets
            await asyncio.sleep(self.pause_s(ttl_s, failures))

    def pause_s(self, ttl_s: float, failures: int) -> float:
        """Until the next question: the TTL within bounds, or after a failure longer from time to time; jittered."""
        pause_s = min(max(ttl_s, LEAST_S), MOST_S)
        if failures:
            pause_s = min(RETRY_LEAST_S * 2 ** min(failures - 1, 10), RETRY_MOST_S)
        return pause_s * (0.9 + 0.2 * self._random())

    def _report(self, problem: str) -> None:
        metrics.REGISTRY_UP.labels(self.name).set(not problem)
        if problem != self._problem:
            if problem:
                log.warning("registry.problem", registry=self.name, reason=problem)
            else:
                log.info("registry.recovered", registry=self.name)
        self._problem = problem
