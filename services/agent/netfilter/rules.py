"""The rules of an interception, as a pure function: Interception, Family -> rules in the order in which they are added.

    nat     PREROUTING -> ISTIO_INBOUND -> ISTIO_IN_REDIRECT -> Envoy's 15006          (REDIRECT)
            OUTPUT -> ISTIO_OUTPUT -> ISTIO_REDIRECT -> Envoy's 15001
                                   -> ISTIO_OUTPUT_DNS -> the agent's 15053
    mangle  PREROUTING -> ISTIO_INBOUND -> ISTIO_DIVERT, ISTIO_TPROXY -> Envoy's 15006 (TPROXY)
            PREROUTING -> ISTIO_DROP
    raw     OUTPUT, PREROUTING -> conntrack zones that keep a DNS query apart from the same query sent on by the agent

127.0.0.6 (::6) is where Envoy's connections to the application come from: they are left alone.
Source: istio tools/istio-iptables/pkg/capture/run.go; the order is part of the meaning, so it is Istio's.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from services.agent.netfilter.interception import ALL, DNS_PORT, OWN_CALL_MARK, Interception

CHAINS = (
    "ISTIO_INBOUND",
    "ISTIO_REDIRECT",
    "ISTIO_IN_REDIRECT",
    "ISTIO_OUTPUT",
    "ISTIO_OUTPUT_DNS",
    "ISTIO_DIVERT",
    "ISTIO_TPROXY",
    "ISTIO_DROP",
)
"""Every chain that these rules may make. Nothing else of that prefix is ours."""
ENVOY_ZONE, APPLICATION_ZONE = 1, 2
"""Conntrack zones of DNS: agent to resolver, application to agent."""


class Family(enum.IntEnum):
    V4 = 4
    V6 = 6

    @property
    def self_cidr(self) -> str:
        return "127.0.0.6/32" if self is Family.V4 else "::6/128"


@dataclass(frozen=True, slots=True)
class Rule:
    table: str
    chain: str
    spec: str
    position: int = 0
    """Where it is inserted, from 1; 0: at the end."""

    @property
    def line(self) -> str:
        if self.position:
            return f"-I {self.chain} {self.position} {self.spec}"
        return f"-A {self.chain} {self.spec}"


def rules_of(wanted: Interception, family: Family) -> tuple[Rule, ...]:
    """All rules of one family. Rules of several tables are mixed; within a table the order counts."""
    if family is Family.V6 and not wanted.ipv6:
        return ()
    loopback = wanted.loopback_cidr if family is Family.V4 else "::1/128"
    return (
        *_interfaces(wanted),
        *_drop_invalid(wanted),
        *_redirect_chains(wanted),
        *_inbound(wanted, loopback),
        *_excluded_outbound(wanted, family),
        *_envoys_own(wanted, loopback),
        *_owner_groups(wanted),
        *_dns(wanted, family),
        *_outbound(wanted, family, loopback),
        *_tproxy_marks(wanted, family, loopback),
    )


def _interfaces(wanted: Interception) -> Iterator[Rule]:
    for table in ("nat", "mangle") if wanted.tproxy else ("nat",):
        for name in wanted.exclude_interfaces:
            yield Rule(table, "PREROUTING", f"-i {name} -j RETURN")
            yield Rule(table, "OUTPUT", f"-o {name} -j RETURN")
    for name in wanted.virtual_interfaces:
        yield Rule("nat", "PREROUTING", f"-i {name} -j RETURN", 1)


def _drop_invalid(wanted: Interception) -> Iterator[Rule]:
    if wanted.drop_invalid:
        yield Rule("mangle", "PREROUTING", "-m conntrack --ctstate INVALID -j ISTIO_DROP")
        yield Rule("mangle", "ISTIO_DROP", "-j DROP")


def _redirect_chains(wanted: Interception) -> Iterator[Rule]:
    yield Rule("nat", "ISTIO_INBOUND", f"-p tcp --dport {wanted.tunnel_port} -j RETURN")
    yield Rule("nat", "ISTIO_REDIRECT", f"-p tcp -j REDIRECT --to-ports {wanted.outbound_port}")
    yield Rule("nat", "ISTIO_IN_REDIRECT", f"-p tcp -j REDIRECT --to-ports {wanted.inbound_port}")


def _inbound(wanted: Interception, loopback: str) -> Iterator[Rule]:
    if not wanted.inbound_ports:
        return
    table = "mangle" if wanted.tproxy else "nat"
    if wanted.tproxy:
        mark = wanted.tproxy_mark
        yield Rule("mangle", "ISTIO_DIVERT", f"-j MARK --set-mark {mark}")
        yield Rule("mangle", "ISTIO_DIVERT", "-j ACCEPT")
        target = f"-j TPROXY --tproxy-mark {mark}/0xffffffff --on-port {wanted.inbound_port}"
        yield Rule("mangle", "ISTIO_TPROXY", f"! -d {loopback} -p tcp {target}")
    yield Rule(table, "PREROUTING", "-p tcp -j ISTIO_INBOUND")
    if wanted.inbound_ports == ALL:
        for port in wanted.inbound_ports_exclude:
            yield Rule(table, "ISTIO_INBOUND", f"-p tcp --dport {port} -j RETURN")
        yield from _to_envoy(wanted, "-p tcp")
        return
    for port in wanted.inbound_ports:
        yield from _to_envoy(wanted, f"-p tcp --dport {port}")


def _to_envoy(wanted: Interception, match: str) -> Iterator[Rule]:
    if not wanted.tproxy:
        yield Rule("nat", "ISTIO_INBOUND", f"{match} -j ISTIO_IN_REDIRECT")
        return
    # What belongs to a connection already is delivered to its socket; the first packet finds Envoy's.
    established = "-m conntrack --ctstate RELATED,ESTABLISHED"
    yield Rule("mangle", "ISTIO_INBOUND", f"{match} {established} -j ISTIO_DIVERT")
    yield Rule("mangle", "ISTIO_INBOUND", f"{match} -j ISTIO_TPROXY")


def _excluded_outbound(wanted: Interception, family: Family) -> Iterator[Rule]:
    yield Rule("nat", "OUTPUT", "-j ISTIO_OUTPUT")
    for port in wanted.outbound_ports_exclude:
        yield Rule("nat", "ISTIO_OUTPUT", f"-p tcp --dport {port} -j RETURN")
        yield Rule("nat", "ISTIO_OUTPUT", f"-p udp --dport {port} -j RETURN")
    yield Rule("nat", "ISTIO_OUTPUT", f"-o lo -s {family.self_cidr} -j RETURN")


def _envoys_own(wanted: Interception, loopback: str) -> Iterator[Rule]:
    """Envoy's calls to its own workload are inbound, all others leave; the application's own loopback calls are left alone."""
    dns = wanted.dns
    tunnel = f"! --dport {wanted.tunnel_port}"
    # A resolver on this machine is asked by the agent, which has Envoy's user: not to be sent to Envoy.
    by_uid = f"-m multiport ! --dports 53,{wanted.tunnel_port}" if dns else tunnel
    # And it is asked by the application, over loopback: that is to be captured, so port 53 is not left alone.
    others = "-o lo -p tcp ! --dport 53" if dns else "-o lo"
    for kind, ids, ports in (("uid", wanted.uids, by_uid), ("gid", wanted.gids, tunnel)):
        for number in ids:
            owner = f"--{kind}-owner {number}"
            own_call = f"-o lo ! -d {loopback} -p tcp {ports} -m owner {owner}"
            yield Rule("nat", "ISTIO_OUTPUT", f"{own_call} -j ISTIO_IN_REDIRECT")
            if not wanted.captures_loopback:
                yield Rule("nat", "ISTIO_OUTPUT", f"{others} -m owner ! {owner} -j RETURN")
            yield Rule("nat", "ISTIO_OUTPUT", f"-m owner {owner} -j RETURN")


def _owner_groups(wanted: Interception) -> Iterator[Rule]:
    if wanted.owner_groups == ALL:
        for group in wanted.owner_groups_exclude:
            yield Rule("nat", "ISTIO_OUTPUT", f"-m owner --gid-owner {group} -j RETURN")
        return
    matches = [f"-m owner ! --gid-owner {group}" for group in wanted.owner_groups]
    yield Rule("nat", "ISTIO_OUTPUT", " ".join([*matches, "-j RETURN"]))


def _dns(wanted: Interception, family: Family) -> Iterator[Rule]:
    if not wanted.dns:
        return
    servers = _of_family(wanted.dns_servers, family)
    # No address: all of port 53.
    to = ("",) if wanted.capture_all_dns else tuple(f" -d {server}" for server in servers)
    yield Rule("raw", "OUTPUT", "-j ISTIO_OUTPUT_DNS")
    if to:
        yield Rule("nat", "ISTIO_OUTPUT", "-j ISTIO_OUTPUT_DNS")
    for protocol, option in (("tcp", "--to-ports"), ("udp", "--to-port")):
        for address in to:
            spec = f"-p {protocol} --dport 53{address} -j REDIRECT {option} {DNS_PORT}"
            yield Rule("nat", "ISTIO_OUTPUT_DNS", spec)
    for kind, ids in (("uid", wanted.uids), ("gid", wanted.gids)):
        for number in ids:
            owner = f"-m owner --{kind}-owner {number}"
            to_resolver = f"-p udp --dport 53 {owner} -j CT --zone {ENVOY_ZONE}"
            to_client = f"-p udp --sport {DNS_PORT} {owner} -j CT --zone {APPLICATION_ZONE}"
            yield Rule("raw", "ISTIO_OUTPUT_DNS", to_resolver)
            yield Rule("raw", "ISTIO_OUTPUT_DNS", to_client)
    if to:
        yield Rule("raw", "PREROUTING", "-j ISTIO_INBOUND")
    for address in to:
        query = f"-p udp --dport 53{address} -j CT --zone {APPLICATION_ZONE}"
        answer = f"-p udp --sport 53{address.replace('-d', '-s')} -j CT --zone {ENVOY_ZONE}"
        yield Rule("raw", "ISTIO_OUTPUT_DNS", query)
        yield Rule("raw", "ISTIO_INBOUND", answer)


def _outbound(wanted: Interception, family: Family, loopback: str) -> Iterator[Rule]:
    yield Rule("nat", "ISTIO_OUTPUT", f"-d {loopback} -j RETURN")
    for cidr in _of_family(wanted.outbound_cidrs_exclude, family):
        yield Rule("nat", "ISTIO_OUTPUT", f"-d {cidr} -j RETURN")
    for port in wanted.outbound_ports:
        yield Rule("nat", "ISTIO_OUTPUT", f"-p tcp --dport {port} -j ISTIO_REDIRECT")
    if wanted.outbound_cidrs == ALL:
        yield Rule("nat", "ISTIO_OUTPUT", "-j ISTIO_REDIRECT")
        for name in wanted.virtual_interfaces:
            yield Rule("nat", "PREROUTING", f"-i {name} -j ISTIO_REDIRECT", 1)
        return
    for cidr in _of_family(wanted.outbound_cidrs, family):
        for name in wanted.virtual_interfaces:
            yield Rule("nat", "PREROUTING", f"-i {name} -d {cidr} -j ISTIO_REDIRECT", 1)
        yield Rule("nat", "ISTIO_OUTPUT", f"-d {cidr} -j ISTIO_REDIRECT")


def _tproxy_marks(wanted: Interception, family: Family, loopback: str) -> Iterator[Rule]:
    """What keeps a connection with the client's own address on its way: the mark that Envoy gives it, kept per connection."""
    if not wanted.tproxy:
        return
    mark = wanted.tproxy_mark
    marked = f"-m mark --mark {mark}"
    yield Rule("mangle", "PREROUTING", f"-p tcp {marked} -j CONNMARK --save-mark")
    yield Rule("mangle", "OUTPUT", f"-p tcp -o lo {marked} -j RETURN")
    owners = [f"--uid-owner {number}" for number in wanted.uids]
    owners += [f"--gid-owner {number}" for number in wanted.gids]
    for owner in owners:
        own_call = f"! -d {loopback} -p tcp -o lo -m owner {owner}"
        yield Rule("mangle", "OUTPUT", f"{own_call} -j MARK --set-mark {OWN_CALL_MARK}")
    restore = f"-p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark"
    yield Rule("mangle", "OUTPUT", restore)
    yield Rule("mangle", "ISTIO_INBOUND", f"-p tcp {marked} -j RETURN", 1)
    yield Rule("mangle", "ISTIO_INBOUND", f"-p tcp -s {family.self_cidr} -i lo -j RETURN", 2)
    others = f"-p tcp -i lo -m mark ! --mark {OWN_CALL_MARK} -j RETURN"
    yield Rule("mangle", "ISTIO_INBOUND", others, 3)


def _of_family(values: Iterable[str], family: Family) -> tuple[str, ...]:
    """Those of one family, as ranges; what they are written like is kept."""
    whole = "/32" if family is Family.V4 else "/128"
    found = []
    for value in values:
        if ipaddress.ip_interface(value).version == family:
            found.append(value if "/" in value else value + whole)
    return tuple(found)
