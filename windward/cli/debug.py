"""``windward debug ...``: Pilot's views of itself, as tables for people and as JSON or YAML for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from windward.api.admin.v1 import admin_pb2
from windward.cli.connect import DEADLINE_S, admin
from windward.cli.kinds import resolve
from windward.cli.output import print_data, print_table, say

Row = dict[str, Any]


@dataclass(slots=True)
class Answer:
    rows: list[Row] = field(default_factory=list)
    truncated: bool = False


def read(view: str, query: Mapping[str, str | None], limit: int, context: str | None) -> Answer:
    """A view's rows; filters that are empty are none."""
    request = admin_pb2.ReadRequest(
        view=view, query={key: value for key, value in query.items() if value}, limit=limit
    )
    answer = Answer()
    with admin(context) as stub:
        for part in stub.Read(request, timeout=DEADLINE_S):
            answer.rows += map(json.loads, part.rows)
            answer.truncated |= part.truncated
    return answer


def cause(word: str) -> str:
    """The kind of what causes pushes that a word means: of an object by any of its names, or a workload. Raises UserError."""
    if not word or word.lower() in {"workload", "workloads"}:
        return word and "workload"
    return resolve(word).kind


def show(
    view: str,
    query: Mapping[str, str | None],
    limit: int,
    output: str,
    context: str | None,
) -> None:
    answer = read(view, query, limit, context)
    if output == "table":
        columns = COLUMNS[view]
        print_table([*columns], [[cell(row) for cell in columns.values()] for row in answer.rows])
    else:
        print_data(answer.rows, output)
    if answer.truncated:
        say(f"only the first {len(answer.rows)} rows: see --limit, or narrow it down")


def _percentiles(row: Row) -> str:
    if row["p50Ms"] is None:
        return "-"
    return f"{row['p50Ms']:.0f}/{row['p99Ms']:.0f}"


def _moment(text: str) -> str:
    """To the millisecond."""
    return text[:23].replace("T", " ")


def _counted(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.items()) or "-"


def _sizes(row: Row) -> str:
    total = sum(size["bytes"] for size in row["resources"].values())
    return f"{total / 1024:.0f} KiB"


def _blames(row: Row) -> str:
    found = [" ".join(filter(None, (b["object"], b["path"]))) for b in row["blames"]]
    return ", ".join(found) or "not known"


def _egress(row: Row) -> str:
    if row["egress"] is None:
        return "everything"
    hosts = row["egress"]["hosts"]
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")


Columns = Mapping[str, Callable[[Row], object]]
COLUMNS: Final[Mapping[str, Columns]] = {
    "events": {
        "TIME": lambda row: _moment(row["at"]),
        "REVISION": lambda row: row["revision"],
        "ACCEPTED": lambda row: f"{row['accepted']}/{row['proxies']}",
        "P50/P99 MS": _percentiles,
        "WHAT": lambda row: row["text"],
    },
    "services": {
        "HOST": lambda row: row["host"],
        "PORTS": lambda row: ",".join(f"{p['number']}/{p['protocol']}" for p in row["ports"]),
        "ADDRESSES": lambda row: ",".join(row["addresses"] or row["virtualAddresses"]) or "-",
        "HEALTHY": lambda row: f"{row['healthy']}/{row['endpoints']}",
        "RESOLUTION": lambda row: row["resolution"],
        "FROM": lambda row: row["origin"],
    },
    "endpoints": {
        "HOST": lambda row: row["host"],
        "ADDRESS": lambda row: row["address"],
        "PORTS": lambda row: ",".join(f"{k}:{v}" for k, v in row["ports"].items()) or "-",
        "WORKLOAD": lambda row: f"{row['namespace']}/{row['workload']}",
        "HEALTHY": lambda row: "yes" if row["healthy"] else "no",
        "LEASE": lambda row: row["lease"],
        "MTLS": lambda row: "yes" if row["mtls"] else "no",
    },
    "scopes": {
        "NAMESPACE": lambda row: row["namespace"],
        "SHAPE": lambda row: row["shape"],
        "LABELS": lambda row: ",".join(f"{k}={v}" for k, v in row["labels"].items()) or "-",
        "GROUPS": lambda row: row["groups"],
        "PROXIES": lambda row: row["proxies"],
        "SIZE": _sizes,
        "EGRESS": _egress,
    },
    "connections": {
        "PROXY": lambda row: row["proxy"],
        "ADDRESS": lambda row: row["address"],
        "SINCE": lambda row: _moment(row["connectedAt"]),
        "PROTOCOL": lambda row: row["protocol"],
        "WATCHES": lambda row: _counted(row["watches"]),
        "PILOT": lambda row: row["pilot"],
    },
    "refusals": {
        "TIME": lambda row: _moment(row["at"]),
        "TYPE": lambda row: row["type"],
        "NAME": lambda row: row["name"],
        "BY": lambda row: len(row["by"]),
        "HELD": lambda row: "for all" if row["heldForAll"] else "for those who refused it",
        "TO BLAME": _blames,
        "ENVOY SAYS": lambda row: row["error"],
    },
    "status": {
        "PILOT": lambda row: row["pilot"],
        "VERSION": lambda row: row["version"],
        "REVISION": lambda row: row["revision"],
        "PROXIES": lambda row: row["proxies"],
        "SYNCED": lambda row: row["synced"],
        "STALE": lambda row: row["stale"],
        "ERROR": lambda row: row["error"],
        "P50/P99 MS": lambda row: _percentiles(row["pushes"]),
        "REFUSALS": lambda row: row["refusals"],
    },
}
