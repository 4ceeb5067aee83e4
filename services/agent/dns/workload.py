"""The workload's DNS, wired: settings in, the callback that name tables go to and a view of what is known out."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from services.agent.dns.metrics import DnsMetrics
from services.agent.dns.proxy import DnsProxy
from services.agent.dns.resolv import ResolvConf, Server
from services.agent.dns.table import NameTable
from services.agent.dns.upstream import Asking, Upstream
from services.agent.settings import Settings
from windward.process import FatalError
from windward.rpc.http import Request, Response, Routes
from windward.telemetry.logging import get_logger

log = get_logger()
ADDRESS_AT = 10
"""Where the address begins in a record's tail: type, class, TTL and length are before it."""


class WorkloadDns:
    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._resolv_conf = ResolvConf(Path(settings.dns_resolv_conf), monotonic)
        asking = Asking(
            timeout_s=settings.dns_upstream_timeout, parallel=settings.dns_upstream_parallel
        )
        upstream = Upstream(self._servers, lambda: secrets.randbelow(1 << 16), asking)
        self._metrics = DnsMetrics(registry)
        self._table = NameTable(
            namespace=settings.namespace,
            domain=settings.dns_domain,
            search=self._resolv_conf.current().search,
            families={
                ip_address(address).version
                for address in (settings.address, *settings.instance_ips)
            },
        )
        self.proxy = DnsProxy(self._table, upstream, random.shuffle, perf_counter, self._metrics)

    def _servers(self) -> Sequence[Server]:
        """Asked for each name that is not the mesh's: a search domain that is new here makes such names, once."""
        found = self._resolv_conf.current()
        self._table.search_in(found.search)
        return found.servers

    def names(self, upserts: Mapping[str, bytes], removed: Iterable[str]) -> None:
        """Take in name tables as Pilot sends them: resource -> serialised NameTable.

        Raises ValueError naming those that cannot be used; the others are in force all the same.
        """
        problems = self._table.apply(upserts, removed)
        self._metrics.names.set(len(self._table))
        if problems:
            log.warning("dns.name_tables_refused", problems=problems)
            raise ValueError("; ".join(problems))

    def view(self) -> dict[str, Any]:
        """Every name with its addresses: what a person asks for at /debug/ndsz."""
        return {
            name: {
                "addresses": [
                    str(ip_address(tail[ADDRESS_AT:])) for tail in (*entry.v4, *entry.v6)
                ],
                "host": entry.host,
                "resource": entry.resource,
            }
            for name, entry in self._table
        }


def debug_routes(dns: WorkloadDns | None) -> Routes:
    """/debug/ndsz for the status port: what this workload's names are, for callers on this machine."""

    async def names(request: Request) -> Response:
        if not request.local:
            return Response(403, b"from this machine only\n")
        if dns is None:
            return Response(404, b"the agent does not answer DNS: --dns-capture is false\n")
        return Response(200, msgspec.json.encode(dns.view()) + b"\n", "application/json")

    return {("GET", "/debug/ndsz"): names}


@asynccontextmanager
async def workload_dns(
    settings: Settings, registry: CollectorRegistry
) -> AsyncIterator[tuple[WorkloadDns | None, int]]:
    """Serve while the block lasts; gives the port too. Nothing, and 0, where the workload's DNS is not asked for."""
    if not settings.dns_capture:
        yield None, 0
        return
    try:
        dns = WorkloadDns(settings, registry)
    except ValueError as error:
        raise FatalError(f"--address, --namespace, --dns-domain: {error}") from error
    async with dns.proxy.listening(settings.dns_address, setting="--dns-address") as port:
        yield dns, port
