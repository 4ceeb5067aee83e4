"""citadel/iptables: the rules that `windward-agent netfilter apply --dry-run` prints, against Istio's, line by line and in
what the kernel would have after loading them.

A configuration's values are Go source text; whatever it does not name is empty, so nothing is captured by itself.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

from services.agent.netfilter.canonical import Canonical, canonical
from services.agent.netfilter.command import main
from services.agent.netfilter.errors import NetfilterError
from tests.conformance.cases import Result

FLAGS = {
    "ProxyPort": "-p",
    "InboundCapturePort": "-z",
    "InboundTunnelPort": "-e",
    "ProxyUID": "-u",
    "ProxyGID": "-g",
    "InboundInterceptionMode": "-m",
    "InboundPortsInclude": "-b",
    "InboundPortsExclude": "-d",
    "OutboundIPRangesInclude": "-i",
    "OutboundIPRangesExclude": "-x",
    "OutboundPortsInclude": "-q",
    "OutboundPortsExclude": "-o",
    "ExcludeInterfaces": "-c",
    "RerouteVirtualInterfaces": "-k",
    "InboundTProxyMark": "-t",
    "InboundTProxyRouteTable": "-r",
    "RedirectDNS": "--redirect-dns",
    "CaptureAllDNS": "--capture-all-dns",
    "DropInvalid": "--drop-invalid",
    "DualStack": "--dual-stack",
}
VARIABLES = {
    "OwnerGroupsInclude": "ISTIO_OUTBOUND_OWNER_GROUPS",
    "OwnerGroupsExclude": "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
    "HostIPv4LoopbackCidr": "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
}
HOW_ONLY = ("DryRun", "Reconcile", "ForceApply", "CleanupOnly", "SkipRuleApply", "RunValidation")
"""How to go about it, not what the rules are."""
SERVERS = ("DNSServersV4", "DNSServersV6")


def run(folder: Path) -> Result:
    base = folder / "citadel" / "iptables"
    result = Result()
    for case in json.loads((base / "cases.json").read_text()):
        golden = (base / case["golden"]).read_text()
        result.count(f"citadel/iptables#{case['name']}", judge(case["config"], golden))
    return result


def judge(config: dict[str, str], golden: str) -> str:
    """Why it differs; empty when it does not."""
    try:
        argv, environ = arguments(config)
    except ValueError as error:
        return str(error)
    out, err = io.StringIO(), io.StringIO()
    status = main(["apply", "--dry-run", *argv], environ=environ, out=out, err=err)
    if status:
        return f"refused: {err.getvalue().strip()}"
    ours = printed_rules(out.getvalue())
    theirs = [line for line in golden.splitlines() if line and not line.endswith("tables-save")]
    try:
        same = meaning(ours) == meaning(theirs)
    except NetfilterError:
        # A rule that names a group cannot be resolved where there is none: then the text alone decides.
        same = ours == theirs
    if ours != theirs:
        at = next(
            (n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), -1
        )
        return f"line {at}: {ours[at : at + 1]} for {theirs[at : at + 1]}; same meaning: {same}"
    return "" if same else "the same text, but another meaning"


def arguments(config: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    given = {"InboundPortsExclude": '""', **config}
    ipv6 = "on" if given.pop("EnableIPv6", "false") == "true" else "off"
    servers = [server for key in SERVERS for server in strings(given.pop(key, ""))]
    argv, environ = ["--ipv6", ipv6, "--dns-servers", ",".join(servers)], {}
    for key, text in given.items():
        if key in FLAGS:
            argv.append(
                f"{FLAGS[key]}={value(text)}"
                if key.endswith(("DNS", "Invalid", "Stack"))
                else FLAGS[key]
            )
            if not argv[-1].startswith("--"):
                argv.append(value(text))
        elif key in VARIABLES:
            environ[VARIABLES[key]] = value(text)
        elif key not in HOW_ONLY:
            raise ValueError(f"the configuration has {key}, which is not known")
    return argv, environ


def value(text: str) -> str:
    found: Any = json.loads(text) if text.startswith('"') else text
    return str(found)


def strings(text: str) -> list[str]:
    return re.findall(r'"([^"]*)"', text)


def printed_rules(text: str) -> list[str]:
    """The rules themselves: neither what records them nor the routing commands."""
    lines, wanted = [], False
    for line in text.splitlines():
        if line.startswith("# "):
            wanted = re.match(r"# IPv[46]: ", line) is not None
        elif wanted and not line.startswith("ip "):
            lines.append(line)
    return lines


def meaning(lines: list[str]) -> list[tuple[str, dict[str, list[Canonical]]]]:
    """Table by table, what each chain holds after loading, whatever the spelling and the order of matches."""
    tables: list[tuple[str, dict[str, list[Canonical]]]] = []
    for line in lines:
        if line.startswith("*"):
            tables.append((line[1:].strip(), {}))
        elif line != "COMMIT":
            verb, chain, *rest = line.split(" ")
            specs = tables[-1][1].setdefault(chain, [])
            place = int(rest.pop(0)) - 1 if verb == "-I" else len(specs)
            if verb != "-N":
                specs.insert(place, canonical(" ".join(rest)))
    return tables
