"""The Consul registry: its catalog's services, and the instances of each that pass their checks.

    /v1/catalog/services          blocking query ─┐
    /v1/health/service/<name>     one a service  ─┴─> Catalog -> ServiceEntry consul/consul:<name>

Blocking queries as Consul documents them (api-docs/features/blocking): ``index`` and ``wait``; an index that goes back, or is
no positive number, means that the next question begins anew. After an outage or such a reset, what has vanished is doubted
for a while: agents have to tell a server that was restarted what they run.

A service's host is ``<name>.service[.<datacenter>].consul``, as in Consul's own DNS. Its port is that of its meta entry
``port``, or the lowest of its instances; the protocol is its meta entry ``protocol``, or TCP; labels are meta entries, and
tags ``key=value`` or ``key|value``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from services.pilot.registry.protocol import decode_found
from windward.config.common import PROTOCOLS
from windward.config.hosts import is_dns_label, is_ip
from windward.config.object import ConfigObject
from windward.records import read_json

SOURCE = "consul"
OWN_META = frozenset({"port", "protocol"})
_LABEL_KEY = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class Weights(msgspec.Struct, frozen=True, rename="pascal"):
    passing: int = 1


class Node(msgspec.Struct, frozen=True, rename="pascal"):
    node: str = ""
    address: str = ""


class Service(msgspec.Struct, frozen=True, rename="pascal"):
    service: str = ""
    address: str = ""
    port: int = 0
    tags: list[str] | None = None
    meta: dict[str, str] | None = None
    weights: Weights | None = None


class Check(msgspec.Struct, frozen=True, rename="pascal"):
    status: str = ""


class Instance(msgspec.Struct, frozen=True, rename="pascal"):
    """An element of /v1/health/service/<name>; what is not read here is left out."""

    node: Node
    service: Service
    checks: list[Check] | None = None

    @property
    def passing(self) -> bool:
        return all(check.status == "passing" for check in self.checks or ())


def read_catalog(body: bytes) -> frozenset[str]:
    """The names of /v1/catalog/services. Raises msgspec.DecodeError."""
    return frozenset(read_json(body, dict[str, Any]))


def read_instances(body: bytes) -> tuple[Instance, ...]:
    """Those that pass every check. Raises msgspec.DecodeError."""
    found: list[Instance] = read_json(body, list[Instance])
    return tuple(item for item in found if item.passing)


def host_of(name: str, datacenter: str) -> str:
    return f"{name}.service.{datacenter}.consul" if datacenter else f"{name}.service.consul"


def service_entry(
    name: str, instances: Iterable[Instance], datacenter: str = ""
) -> tuple[ConfigObject[Any] | None, tuple[str, ...]]:
    """A service as a user would write it, and what of it cannot be used."""
    if not is_dns_label(name):
        return None, (f"service {name[:80]!r} is not a DNS label: it is left out",)
    problems: list[str] = []
    usable: list[Instance] = []
    for item in instances:
        if is_ip(_address(item)) and 0 < item.service.port < 65536:
            usable.append(item)
        else:
            where = f"{_address(item)[:80]!r}:{item.service.port}"
            problems.append(f"service {name}: {where} is not an IP address and port: left out")
    usable.sort(key=lambda item: (_address(item), item.service.port))
    metas = [item.service.meta or {} for item in usable]
    protocol = next((meta["protocol"].upper() for meta in metas if meta.get("protocol")), "TCP")
    if protocol not in PROTOCOLS:
        problems.append(f"service {name}: protocol {protocol[:40]!r} is not known: taken as TCP")
        protocol = "TCP"
    given = next((meta["port"] for meta in metas if meta.get("port", "").isdecimal()), "")
    number = int(given[:6]) if given else min((item.service.port for item in usable), default=80)
    port = protocol.lower().replace("_", "-")
    raw = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {
            "name": f"{name}.{datacenter}" if datacenter else name,
            "namespace": SOURCE,
        },
        "spec": {
            "hosts": [host_of(name, datacenter)],
            "ports": [{"number": number, "name": port, "protocol": protocol}],
            "location": "MESH_EXTERNAL",
            "resolution": "STATIC",
            "endpoints": [_endpoint(item, port) for item in usable],
        },
    }
    made, findings = decode_found(SOURCE, raw)
    return made, (*problems, *(f"service {name}: {item.path}: {item.message}" for item in findings))


def _address(item: Instance) -> str:
    return item.service.address or item.node.address


def _endpoint(item: Instance, port: str) -> dict[str, Any]:
    weights = item.service.weights
    return {
        "address": _address(item),
        "ports": {port: item.service.port},
        "labels": _labels(item.service),
        "weight": max(weights.passing if weights else 1, 1),
    }


def _labels(service: Service) -> dict[str, str]:
    """Meta entries, then tags; what cannot be a label is none."""
    pairs = [(key, text) for key, text in (service.meta or {}).items() if key not in OWN_META]
    for tag in service.tags or ():
        key, mark, text = tag.partition("|") if "|" in tag else tag.partition("=")
        if mark:
            pairs.append((key, text))
    return {
        key: text
        for key, text in pairs
        if _LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(text)
    }


@dataclass(slots=True)
class BlockingQuery:
    """One question asked again and again; who asks carries out what it says. Time is an argument, in seconds."""

    path: str
    doubt_s: float
    index: int = 0
    failures: int = 0
    doubt_until_s: float = -math.inf

    def parameters(self, wait_s: float) -> Mapping[str, str]:
        """Without an index the answer comes at once."""
        return {"index": str(self.index), "wait": f"{wait_s:g}s"} if self.index else {}

    def answered(self, index: int, now_s: float) -> None:
        """Take over an answer's X-Consul-Index; one that goes back is of another history."""
        self.failures = 0
        if 0 < index < self.index:
            self.doubt_until_s = now_s + self.doubt_s
            self.index = 0
        else:
            self.index = index

    def failed(self, now_s: float) -> None:
        """What the server knew is not known to be so any more: ask for all of it."""
        self.failures += 1
        self.index = 0
        self.doubt_until_s = now_s + self.doubt_s

    def doubts(self, missing: int, now_s: float) -> bool:
        """Whether what an answer lacks may only not be there yet; then the question is to be asked again, anew."""
        doubted = missing > 0 and now_s < self.doubt_until_s
        if doubted:
            self.index = 0
        return doubted
