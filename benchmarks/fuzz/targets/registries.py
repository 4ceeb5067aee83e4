"""What other registries send: files, Consul's answers, DNS servers' answers.

Asserted: only the error that its reader expects leaves, and what is read are objects like those that users write, with their
findings; a host of such an object is merged with others and leaves again.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from functools import cache
from random import Random
from types import ModuleType
from typing import Any, Final

import msgspec
from dnslib import AAAA, CNAME, QTYPE, RR, SOA, SRV, A, DNSHeader, DNSQuestion, DNSRecord

from benchmarks.fuzz.mutate import mutate_bytes, mutate_text
from benchmarks.fuzz.target import Single
from benchmarks.fuzz.trees import mutate_tree
from services.pilot.registry import consul, dns, files, merge, protocol, resolver
from services.pilot.registry.dns import DnsName, Target
from services.pilot.registry.files import Folder, read_text
from services.pilot.registry.merge import Merge
from services.pilot.registry.protocol import RegistryBatch, decode_found
from services.pilot.registry.resolver import LookupFailed
from windward.config import decode, document, service_entry, walk, workload_entry
from windward.config.object import ConfigObject

FIELDS: Final = (
    "apiVersion", "kind", "metadata", "name", "namespace", "spec", "hosts", "ports", "number", "protocol", "resolution",
    "location", "endpoints", "address", "addresses", "labels", "weight", "exportTo", "workloadSelector", "locality",
    "items", "List", "targetPort",
)  # fmt: skip
ENTRY: Final = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "ServiceEntry",
    "metadata": {"name": "web", "namespace": "shop", "labels": {"a": "b"}},
    "spec": {
        "hosts": ["web.example.com"],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "resolution": "STATIC",
        "endpoints": [{"address": "10.0.0.1", "ports": {"http": 8080}, "weight": 2}],
    },
}
WORKLOAD: Final = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "WorkloadEntry",
    "metadata": {"name": "w1"},
    "spec": {"address": "10.0.0.2", "labels": {"app": "web"}, "serviceAccount": "web"},
}
BREAKS: Final = "\n\r\x85\u2028\u2029"
"""What ends a line in YAML 1.1."""
YAML: Final = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example.com]
  addresses: [fd00::, 10.0.0.1]
  ports: &p
  - {number: 443, name: tls, protocol: TLS}
  resolution: DNS
---
kind: List
items: []
"""


@cache
def _of_the_mesh() -> ConfigObject[Any]:
    made, _ = decode_found("file", ENTRY)
    assert made is not None
    return made


def _merged(batch: RegistryBatch) -> int:
    """In beside another registry's, and out again."""
    both = Merge(["mesh", "other"])
    both.apply("other", batch)
    mesh = _of_the_mesh()
    told = both.apply("mesh", RegistryBatch((mesh,)))
    both.apply("mesh", RegistryBatch((), (mesh.key,)))
    both.apply("other", RegistryBatch((), tuple(item.key for item in batch.upserts)))
    assert both.count("other") == 0
    assert not both.conflicts
    return len(told.upserts)


class Files(Single):
    """The text of a file, after one that was good."""

    modules: Sequence[ModuleType] = (
        files,
        document,
        decode,
        walk,
        service_entry,
        workload_entry,
        merge,
    )
    words = (
        *FIELDS,
        "---\n",
        "&a ",
        "*p",
        "<<: *p",
        "!!binary ",
        "!!set ",
        "? ",
        "- ",
        "{",
        "[",
        "#",
        "|\n",
        "\t",
        "2001-01-01",
        ".inf",
    )

    def __init__(self) -> None:
        self._good = read_text(json.dumps(ENTRY), "f.yaml")

    def seeds(self) -> Sequence[str]:
        return [
            json.dumps(ENTRY),
            json.dumps(WORKLOAD),
            json.dumps({"kind": "List", "items": [ENTRY, WORKLOAD]}),
            YAML,
        ]

    def mutate(self, random: Random, chosen: str, other: str) -> str:
        if chosen.startswith("{") and random.random() < 0.7:
            try:
                tree, others = json.loads(chosen), json.loads(other)
            except ValueError:
                tree, others = ENTRY, WORKLOAD
            return json.dumps(mutate_tree(random, tree, others, FIELDS))[:4000]
        at = random.randrange(len(chosen) + 1)
        to = min(at + random.choice((1, 10, 40)), len(chosen))
        return (chosen[:at] + mutate_text(random, chosen[at:to], self.words) + chosen[to:])[:4000]

    def execute(self, given: str) -> Hashable:
        folder = Folder()
        folder.take({"f.yaml": self._good})
        now = read_text(given, "f.yaml")
        batch = folder.take({"f.yaml": now, "g.yaml": self._good})
        for problem in now.problems:
            assert problem.message
            assert 1 <= problem.line <= 2 + sum(map(given.count, BREAKS))
        assert now.bad or not now.problems or now.objects
        _merged(batch)
        for item in now.objects.values():
            assert item.key.name.startswith("file:")
        said = tuple((item.path[:12], item.message[:12]) for item in now.problems[:2])
        return len(now.objects), said, None in now.bad


class Consul(Single):
    """(catalog, instances of a service) as Consul's JSON."""

    modules: Sequence[ModuleType] = (consul, protocol, decode, walk, service_entry, merge)
    words = (
        "Service", "Node", "Address", "Port", "Tags", "Meta", "Weights", "Passing", "Checks", "Status", "passing",
        "critical", "port", "protocol", "http", "HTTP2", "version=v1", "a|b", "web", "10.0.0.1", "::1", "8080",
    )  # fmt: skip

    def seeds(self) -> Sequence[tuple[bytes, bytes]]:
        instance = {
            "Node": {"Node": "n1", "Address": "10.9.9.9"},
            "Service": {
                "Service": "web",
                "Address": "10.0.0.1",
                "Port": 8080,
                "Tags": ["version=v1", "tier|front"],
                "Meta": {"protocol": "http", "port": "80", "team": "shop"},
                "Weights": {"Passing": 3, "Warning": 1},
            },
            "Checks": [{"Status": "passing"}],
        }
        bare = {"Node": {"Address": "::1"}, "Service": {"Service": "web", "Port": 1}}
        catalog = json.dumps({"web": ["tag"], "consul": []}).encode()
        return [(catalog, json.dumps(item).encode()) for item in ([instance], [instance, bare], [])]

    def mutate(
        self, random: Random, chosen: tuple[bytes, bytes], other: tuple[bytes, bytes]
    ) -> tuple[bytes, bytes]:
        catalog, instances = chosen
        if random.random() < 0.2:
            return self._other(random, catalog, other[0]), instances
        return catalog, self._other(random, instances, other[1])

    def _other(self, random: Random, raw: bytes, other: bytes) -> bytes:
        if random.random() < 0.8:
            try:
                made = mutate_tree(random, json.loads(raw), json.loads(other), self.words)
                return json.dumps(made, ensure_ascii=False).encode(errors="surrogatepass")[:4000]
            except ValueError:
                pass
        return mutate_bytes(random, raw, other, (b'"', b"{", b"]", b"\\ud800", b"\xff", b"1e999"))

    def execute(self, given: tuple[bytes, bytes]) -> Hashable:
        try:
            names = consul.read_catalog(given[0])
            instances = consul.read_instances(given[1])
        except msgspec.DecodeError as error:
            return str(error)[:30]
        said: list[Hashable] = []
        for name in sorted(names)[:3]:
            made, problems = consul.service_entry(name, instances, "dc1" if len(names) > 2 else "")
            assert made is not None or problems
            if made is not None:
                _merged(RegistryBatch((made,)))
                said.append((len(made.spec.endpoints), made.spec.ports[0].protocol))
            said.append(tuple(problem[-20:] for problem in problems[:2]))
        return tuple(said)


class Dns(Single):
    """(type asked for, a server's datagram)."""

    modules: Sequence[ModuleType] = (resolver, dns, protocol)
    wanted: Final = DnsName("_http._tcp.web.example.com", 0, "HTTP")

    def seeds(self) -> Sequence[tuple[str, bytes]]:
        made = []
        for kind in ("A", "AAAA", "SRV"):
            question = self._question(kind)
            name = str(question.q.qname)
            reply = DNSRecord(DNSHeader(id=7, qr=1, ra=1), q=question.q)
            reply.add_answer(RR(name, QTYPE.CNAME, ttl=9, rdata=CNAME("real.example.com")))
            datas = {
                "A": A("10.0.0.1"),
                "AAAA": AAAA("fd00::1"),
                "SRV": SRV(1, 5, 80, "a.example.com"),
            }
            for owner in (name, "real.example.com"):
                reply.add_answer(RR(owner, getattr(QTYPE, kind), ttl=30, rdata=datas[kind]))
            made.append((kind, bytes(reply.pack())))
            none = DNSRecord(DNSHeader(id=7, qr=1, rcode=3), q=question.q)
            none.add_auth(
                RR("example.com", QTYPE.SOA, ttl=60, rdata=SOA("ns", "me", (1, 2, 3, 4, 5)))
            )
            made.append((kind, bytes(none.pack())))
        return made

    def mutate(self, random: Random, chosen: tuple[str, bytes], other: tuple[str, bytes]) -> Any:
        words = (
            b"\xc0\x0c",
            b"\xc0\x00",
            b"\x00",
            b"\x00\x05",
            b"\x00\x21",
            b"\x00\x1c",
            b"\xff\xff",
            b"\x03a.b\x00",
            b"\x02\xc3\xa9\x00",
        )
        head = 28 if random.random() < 0.8 else 0
        made = mutate_bytes(random, chosen[1][head:], other[1][28:], words)
        return chosen[0], (chosen[1][:head] + made)[:1500]

    def execute(self, given: tuple[str, bytes]) -> Hashable:
        kind, data = given
        question = self._question(kind)
        reply = resolver.parse_reply(data, question)
        if reply is None:
            return "no answer"
        try:
            answer = resolver.read_answer(reply, self.wanted.name, kind)
        except LookupFailed as error:
            return str(error)[:30]
        assert answer.ttl_s >= 0
        targets = set()
        for record in answer.records:
            if kind == "SRV":
                assert sorted([record.data]) == [record.data]
                assert 0 <= record.data[2] < 65536
            else:
                targets.add(Target(record.data, 80))
        made, findings = decode_found("dns", dns.service_entry(self.wanted, targets))
        assert made is not None, findings
        return kind, min(len(answer.records), 3), min(answer.ttl_s, 2)

    def _question(self, kind: str) -> Any:
        return DNSRecord(DNSHeader(id=7), q=DNSQuestion(self.wanted.name, getattr(QTYPE, kind)))
