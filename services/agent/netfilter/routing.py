"""What ``iproute2`` must set beside the rules.

    TPROXY   packets with the mark are looked up in a table of their own, in which every address is this machine's
    IPv6     ::6 on lo, from where Envoy calls the application (all of 127.0.0.0/8 is there by itself, as 127.0.0.6)

Source: istio tools/common/tproxy; Envoy, original source listener filter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from services.agent.netfilter.interception import Interception
from services.agent.netfilter.rules import Family
from services.agent.netfilter.state import Chains

SELF_V6 = "::6"


@dataclass(frozen=True, slots=True)
class Routing:
    """One thing to be there: ``ip -4 rule add fwmark 1337 lookup 133``."""

    family: Family
    kind: Literal["rule", "route", "addr"]
    mark: int = 0
    table: int = 0

    def command(self, verb: Literal["add", "del"]) -> tuple[str, ...]:
        what = {
            "rule": f"fwmark {self.mark} lookup {self.table}",
            "route": f"local default dev lo table {self.table}",
            "addr": f"{SELF_V6}/128 dev lo",
        }[self.kind]
        return ("ip", f"-{self.family}", self.kind, verb, *what.split())

    @property
    def query(self) -> tuple[str, ...]:
        """Prints JSON; fails when the table is not there."""
        more = {"rule": "", "route": f"table {self.table}", "addr": "dev lo"}[self.kind]
        return ("ip", "-j", f"-{self.family}", self.kind, "show", *more.split())

    def found_in(self, answer: str) -> bool:
        """Whether it is there, by what the query printed."""
        match self.kind:
            case "rule":
                return str(self.table) in tables_of_mark(answer, self.mark)
            case "route":
                return any(
                    entry.get("type") == "local" and entry.get("dst") == "default"
                    for entry in _entries(answer)
                )
            case "addr":
                addresses = [
                    info for entry in _entries(answer) for info in entry.get("addr_info", ())
                ]
                return any(info.get("local") == SELF_V6 for info in addresses)


def routing_of(wanted: Interception) -> tuple[Routing, ...]:
    families = (Family.V4, Family.V6) if wanted.ipv6 else (Family.V4,)
    found = [Routing(Family.V6, "addr")] if wanted.ipv6 else []
    if wanted.tproxy and wanted.inbound_ports:
        for family in families:
            found += tproxy_routing(family, wanted.tproxy_mark, wanted.tproxy_table)
    return tuple(found)


def tproxy_routing(family: Family, mark: int, table: int) -> tuple[Routing, Routing]:
    """The route first: with the rule alone, marked packets would go nowhere."""
    return (
        Routing(family, "route", table=table),
        Routing(family, "rule", mark=mark, table=table),
    )


def marks_in(tables: Iterable[Chains]) -> tuple[int, ...]:
    """The marks that loaded TPROXY rules of ours set."""
    found = set()
    for chains in tables:
        for spec in chains.get("ISTIO_TPROXY", ()):
            words = spec.split()
            if "--tproxy-mark" in words[:-1]:
                mark = words[words.index("--tproxy-mark") + 1].partition("/")[0]
                found.add(int(mark, 0))
    return tuple(sorted(found))


def tables_of_mark(answer: str, mark: int) -> tuple[str, ...]:
    """The routing tables that a mark leads to, by ``ip -j rule show``."""
    return tuple(
        entry["table"]
        for entry in _entries(answer)
        if "fwmark" in entry and int(str(entry["fwmark"]), 0) == mark and "fwmask" not in entry
    )


def _entries(answer: str) -> list[dict[str, Any]]:
    try:
        loaded = json.loads(answer)
    except ValueError:
        return []
    return [entry for entry in loaded if isinstance(entry, dict)]
