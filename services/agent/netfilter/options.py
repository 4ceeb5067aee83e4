"""Flags and environment -> Interception, and how to go about it. Flags win over the environment.

Names and defaults are Istio's (istio tools/istio-iptables/pkg/cmd/root.go, pkg/constants), so that what calls
``istio-iptables`` today can call this. Each of Istio's flags may also stand in the environment, in capitals and with ``_``
for ``-``, but ``--envoy-port``: Kubernetes sets such variables for services.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from services.agent.netfilter.errors import InterceptionError
from services.agent.netfilter.host import KINDS, Kind
from services.agent.netfilter.interception import AGENT_PORTS, ALL, Interception, Mode
from windward.settings import Seconds

RESOLV_CONF = Path("/etc/resolv.conf")
PROGRAM = "windward-agent netfilter"

FLAGS: tuple[tuple[str, str, str, str], ...] = (
    ("-p", "envoy-port", "15001", "where Envoy takes outbound connections"),
    ("-z", "inbound-capture-port", "15006", "where Envoy takes inbound connections"),
    ("-e", "inbound-tunnel-port", "15008", "where Envoy takes tunnels; reached directly"),
    ("-u", "proxy-uid", "1337", "Envoy's users, numbers by comma: their traffic is not captured"),
    ("-g", "proxy-gid", "", "Envoy's groups, numbers by comma (default: as -u)"),
    (
        "-m",
        "istio-inbound-interception-mode",
        "REDIRECT",
        "REDIRECT, or TPROXY, which keeps the client's address (Envoy must run as uid 0, gid 1337, with NET_ADMIN)",
    ),
    ("-b", "istio-inbound-ports", "", "inbound ports to capture: * for all, empty for none"),
    (
        "-d",
        "istio-local-exclude-ports",
        ",".join(str(port) for port in AGENT_PORTS),
        "inbound ports to leave alone when -b is *",
    ),
    ("-i", "istio-service-cidr", "", "outbound ranges to capture: * for all, empty for none"),
    ("-x", "istio-service-exclude-cidr", "", "outbound ranges to leave alone"),
    ("-q", "istio-outbound-ports", "", "outbound TCP ports to capture, whatever the address"),
    ("-o", "istio-local-outbound-ports-exclude", "", "outbound ports to leave alone, TCP and UDP"),
    ("-c", "istio-exclude-interfaces", "", "network interfaces of which nothing is captured"),
    (
        "-k",
        "kube-virt-interfaces",
        "",
        "interfaces of virtual machines: what comes in there is captured as outbound",
    ),
    ("-t", "istio-inbound-tproxy-mark", "1337", "TPROXY: the mark of packets"),
    ("-r", "istio-inbound-tproxy-route-table", "133", "TPROXY: the routing table for them"),
    (
        "",
        "dns-servers",
        "auto",
        "with --redirect-dns: resolvers whose queries are captured; auto: those of /etc/resolv.conf",
    ),
    ("", "ipv6", "auto", "IPv6 rules: on, off, or auto: if IPv6 is the first address here"),
    (
        "",
        "force-iptables-binary",
        "",
        "nft or legacy (default: the one in use, else the machine's default)",
    ),
    ("", "iptables-probe-port", "15002", "with --run-validation: the port that is probed"),
    ("", "probe-timeout", "5s", "with --run-validation: longest wait"),
)
SWITCHES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("redirect-dns", "false", ("ISTIO_META_DNS_CAPTURE",), "capture DNS: to the agent's 15053"),
    ("capture-all-dns", "false", (), "with --redirect-dns: all of port 53, whatever the resolver"),
    ("drop-invalid", "false", ("INVALID_DROP",), "drop packets that belong to no connection"),
    (
        "dual-stack",
        "false",
        ("ISTIO_DUAL_STACK", "ISTIO_AGENT_DUAL_STACK"),
        "IPv6 rules if any address here is IPv6",
    ),
    ("dry-run", "false", (), "only print the rules and commands; needs no rights"),
    ("reconcile", "true", (), "replace differing rules that are there; false: refuse"),
    ("force-apply", "false", (), "load the rules even where nothing differs"),
    ("cleanup-only", "false", (), "as `clean`"),
    ("skip-rule-apply", "false", (), "change nothing; for --run-validation"),
    ("run-validation", "false", (), "then connect through the rules; exit 126 when that fails"),
    ("native-nftables", "false", (), "refused: the rules are loaded by iptables, -nft or -legacy"),
)
FLAG_ONLY = ("envoy-port", "dns-servers", "ipv6")
"""Variables of these names would mean something else to others."""
ENVIRONMENT = {
    "ISTIO_OUTBOUND_OWNER_GROUPS": "groups whose outbound traffic is captured, names or numbers (default: *)",
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE": "groups whose outbound traffic is not captured (default: none)",
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR": "what counts as IPv4 loopback (default: 127.0.0.1/32)",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for, checked."""

    action: Literal["apply", "check", "clean"]
    interception: Interception
    ipv6: Literal["auto", "on", "off"]
    dual_stack: bool
    forced: Kind | None
    dry_run: bool
    reconcile: bool
    force: bool
    skip_apply: bool
    validate: bool
    probe_port: int
    probe_timeout_s: float


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InterceptionError("netfilter", f"{message}; see {PROGRAM} --help")


def parser() -> argparse.ArgumentParser:
    made = _Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} apply|check|clean [flags]",
        description="Send a workload's traffic through its Envoy: set the kernel's rules, compare them, take them away.",
        epilog="In the environment only: "
        + "; ".join(f"{name}: {text}" for name, text in ENVIRONMENT.items())
        + f". Every flag but {', '.join(f'--{name}' for name in FLAG_ONLY)} may stand there too, as ISTIO_INBOUND_PORTS=...",
        allow_abbrev=False,
    )
    made.add_argument(
        "action",
        choices=("apply", "check", "clean"),
        help="apply: make it so; check: say what differs, exit 1 if anything does; clean: take all of it away",
    )
    for short, name, default, text in FLAGS:
        names = [short, f"--{name}"] if short else [f"--{name}"]
        about = f"{text} (default: {default})" if default else text
        made.add_argument(*names, metavar="VALUE", help=about.replace("%", "%%"))
    for name, default, _, text in SWITCHES:
        names = ["-n", f"--{name}"] if name == "dry-run" else [f"--{name}"]
        about = f"{text} (default: {default})"
        made.add_argument(*names, nargs="?", const="true", metavar="true|false", help=about)
    return made


def options(argv: Sequence[str], environ: Mapping[str, str], resolv_conf: str) -> Options:
    """Raises InterceptionError naming the flag. ``resolv_conf``: the text of that file, used for DNS capture."""
    given = vars(parser().parse_args(list(argv)))
    values = {
        name: _first(given[_key(name)], environ, _variables(name), default)
        for _, name, default, _ in FLAGS
    }
    switches = {
        name: _boolean(name, _first(given[_key(name)], environ, (_upper(name), *more), default))
        for name, default, more, _ in SWITCHES
    }
    if switches["native-nftables"]:
        raise InterceptionError(
            "--native-nftables", "there are no such rules here: say --force-iptables-binary nft"
        )
    ipv6 = _one_of("--ipv6", values["ipv6"], ("auto", "on", "off"))
    forced = values["force-iptables-binary"]
    if forced:
        _one_of("--force-iptables-binary", forced, KINDS)
    clean = switches["cleanup-only"] and given["action"] == "apply"
    return Options(
        action="clean" if clean else given["action"],
        interception=_interception(values, switches, environ, resolv_conf, ipv6=ipv6 == "on"),
        ipv6="on" if ipv6 == "on" else "off" if ipv6 == "off" else "auto",
        dual_stack=switches["dual-stack"],
        forced=next((kind for kind in KINDS if kind == forced), None),
        dry_run=switches["dry-run"],
        reconcile=switches["reconcile"],
        force=switches["force-apply"],
        skip_apply=switches["skip-rule-apply"],
        validate=switches["run-validation"],
        probe_port=_port("--iptables-probe-port", values["iptables-probe-port"]),
        probe_timeout_s=_seconds("--probe-timeout", values["probe-timeout"]),
    )


def _interception(
    values: Mapping[str, str],
    switches: Mapping[str, bool],
    environ: Mapping[str, str],
    resolv_conf: str,
    *,
    ipv6: bool,
) -> Interception:
    mode: Mode = "TPROXY" if values["istio-inbound-interception-mode"] == "TPROXY" else "REDIRECT"
    _one_of("-m", values["istio-inbound-interception-mode"] or mode, ("REDIRECT", "TPROXY"))
    inbound, cidrs = values["istio-inbound-ports"], values["istio-service-cidr"]
    groups = environ.get("ISTIO_OUTBOUND_OWNER_GROUPS", ALL)
    excluded_groups = environ.get("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "")
    given = values["dns-servers"]
    servers = nameservers(resolv_conf) if given == "auto" else split(given)
    return Interception(
        mode=mode,
        outbound_port=_port("-p", values["envoy-port"]),
        inbound_port=_port("-z", values["inbound-capture-port"]),
        tunnel_port=_port("-e", values["inbound-tunnel-port"]),
        uids=_numbers("-u", values["proxy-uid"]),
        gids=_numbers("-g", values["proxy-gid"] or values["proxy-uid"]),
        inbound_ports=ALL if inbound == ALL else _numbers("-b", inbound),
        inbound_ports_exclude=_numbers("-d", values["istio-local-exclude-ports"]),
        outbound_ports=_numbers("-q", values["istio-outbound-ports"]),
        outbound_ports_exclude=_numbers("-o", values["istio-local-outbound-ports-exclude"]),
        outbound_cidrs=ALL if cidrs == ALL else split(cidrs),
        outbound_cidrs_exclude=split(values["istio-service-exclude-cidr"]),
        exclude_interfaces=split(values["istio-exclude-interfaces"]),
        virtual_interfaces=split(values["kube-virt-interfaces"]),
        owner_groups=ALL if groups == ALL else split(groups),
        owner_groups_exclude=split(excluded_groups),
        redirect_dns=switches["redirect-dns"],
        capture_all_dns=switches["capture-all-dns"],
        dns_servers=servers if switches["redirect-dns"] else (),
        drop_invalid=switches["drop-invalid"],
        ipv6=ipv6,
        loopback_cidr=environ.get("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.1/32"),
        tproxy_mark=_number("-t", values["istio-inbound-tproxy-mark"]),
        tproxy_table=_number("-r", values["istio-inbound-tproxy-route-table"]),
    )


def nameservers(resolv_conf: str) -> tuple[str, ...]:
    """The resolvers; those with a zone (fe80::1%eth0) are left out, iptables cannot name them."""
    lines = [line.split() for line in resolv_conf.splitlines()]
    found = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    return tuple(dict.fromkeys(server for server in found if "%" not in server))


def split(text: str) -> tuple[str, ...]:
    """Values by comma; empty ones are left out."""
    return tuple(part for part in text.split(",") if part)


def _key(name: str) -> str:
    return name.replace("-", "_")


def _upper(name: str) -> str:
    return _key(name).upper()


def _variables(name: str) -> tuple[str, ...]:
    return () if name in FLAG_ONLY else (_upper(name),)


def _first(
    flag: str | None, environ: Mapping[str, str], variables: Sequence[str], default: str
) -> str:
    if flag is not None:
        return flag
    return next((environ[name] for name in variables if name in environ), default)


def _boolean(name: str, text: str) -> bool:
    if text.lower() in {"true", "1"}:
        return True
    if text.lower() in {"false", "0", ""}:
        return False
    raise InterceptionError(f"--{name}", f"{text!r} is neither true nor false")


def _one_of(flag: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise InterceptionError(flag, f"{text!r} is not one of {', '.join(choices)}")
    return text


def _number(flag: str, text: str) -> int:
    # isdecimal takes digits of every script; the kernel's tools would not.
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise InterceptionError(flag, f"{text!r} is not a number")
    return int(text)


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    return tuple(_number(flag, part) for part in split(text))


def _port(flag: str, text: str) -> int:
    port = _number(flag, text)
    if not 1 <= port <= 65535:
        raise InterceptionError(flag, f"{port} is not a port: 1 to 65535")
    return port


def _seconds(flag: str, text: str) -> float:
    try:
        seconds = Seconds.parse(text)
    except ValueError as error:
        raise InterceptionError(flag, str(error)) from None
    if not 0 < seconds <= 3600:
        raise InterceptionError(flag, "between 1ms and 1h")
    return seconds
