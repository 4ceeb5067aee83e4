"""The agent's DNS over a real socket: latency of the mesh's own names and CPU a query, with 10,000 names in the table."""

from __future__ import annotations

import os
import random
import socket
import sys
import tempfile
from pathlib import Path
from statistics import quantiles
from subprocess import PIPE, Popen
from time import perf_counter

NAMES = 10_000
SERVER = """
import asyncio, sys
from prometheus_client import CollectorRegistry
from benchmarks.dns import name_tables
from services.agent.dns.workload import workload_dns
from tests.unit.agent.settings import settings

async def main():
    both = ("10.0.0.7", "fd00::7")
    given = settings(dns_capture=True, dns_address="127.0.0.1:0", dns_resolv_conf=sys.argv[1], instance_ips=both)
    async with workload_dns(given, CollectorRegistry()) as (dns, port):
        dns.names(name_tables(), ())
        print("port", port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""
KINDS = ("A", "AAAA", "search")


def name_tables() -> dict[str, bytes]:
    from windward.api.istio.networking.nds.v1 import nds_pb2

    tables = {}
    for number in range(NAMES):
        host = f"s{number}.shop.svc.cluster.local"
        made = nds_pb2.NameTable()
        entry = made.table[host]
        entry.ips.extend([f"10.1.{number // 256}.{number % 256}", f"fd00::{number:x}"])
        entry.registry, entry.shortname, entry.namespace = "Mesh", f"s{number}", "shop"
        tables[host] = made.SerializeToString()
    return tables


def measure(queries: int = 5000) -> dict[str, float]:
    """Milliseconds a query as a waiting client sees them, one at a time; microseconds of CPU in the server."""
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "resolv.conf"
        conf.write_text("search shop.svc.cluster.local svc.cluster.local example.org\n")
        server = Popen([sys.executable, "-c", SERVER, str(conf)], stdout=PIPE, text=True)
        try:
            assert server.stdout is not None
            said = next(line for line in server.stdout if line.startswith("port"))
            port = int(said.split()[1])
            before = _cpu_s(server.pid)
            times = {kind: _ask(port, kind, queries) for kind in KINDS}
            used = _cpu_s(server.pid) - before
        finally:
            server.kill()
            server.wait()
    figures = {"cpu_us_a_query": round(used * 1e6 / queries / len(KINDS), 1)}
    for kind, taken in times.items():
        cuts = quantiles(taken, n=100)
        figures |= {f"{kind}_p50_ms": round(cuts[49], 4), f"{kind}_p99_ms": round(cuts[98], 4)}
    return figures | {"names": NAMES, "load": round(os.getloadavg()[0], 2)}


def _ask(port: int, kind: str, queries: int) -> list[float]:
    from dnslib import QTYPE, DNSQuestion, DNSRecord

    rng = random.Random(1)
    ending = {"search": ".shop.svc.cluster.local.example.org"}.get(kind, ".shop.svc.cluster.local")
    type_ = QTYPE.AAAA if kind == "AAAA" else QTYPE.A
    asked = [
        DNSRecord(q=DNSQuestion(f"s{rng.randrange(NAMES)}{ending}", type_)).pack()
        for _ in range(queries)
    ]
    taken = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(5)
        for data in asked:
            began = perf_counter()
            client.send(data)
            answer = client.recv(4096)
            taken.append((perf_counter() - began) * 1000)
            assert answer[:2] == data[:2]
            assert answer[7] > 0, "an answer"
    return taken


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
