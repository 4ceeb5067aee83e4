"""What to intercept: the frozen settings that everything else here is computed from.

Every value is checked when it is made, because all of it ends up in ``iptables-restore`` text, where a blank or a
newline would be another argument or another rule. Names and defaults are those of Istio's sidecar rules
(istio tools/istio-iptables/pkg/config, pkg/cmd), where "empty" means "none" and ``*`` means "all".
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Literal

from services.agent.netfilter.errors import InterceptionError

ALL: Final = "*"
Mode = Literal["REDIRECT", "TPROXY"]

DNS_PORT = 15053
"""Where the agent answers DNS."""
OWN_CALL_MARK = 1338
"""TPROXY: marks what Envoy sends to its own workload's address, which is inbound although it comes over loopback."""
AGENT_PORTS = (15090, 15021, 15020)
"""Prometheus, readiness and status: reached directly, or nobody could ask a broken Envoy what is wrong."""
MOST_OWNER_GROUPS = 64
"""They become one rule of as many matches; kernels take 128 and more."""
MOST_VALUES = 1024
"""Of any list: each is at least one rule, for every packet."""
MOST_PAIRS = 4096
"""Of a virtual interface and a range, each a rule."""
LAST_MARK = 2**32 - 1
RESERVED_TABLES = (253, 254, 255)
"""default, main and local: routing everything to loopback there would cut the machine off."""

INTERFACE = re.compile(r"[A-Za-z0-9_.:@+][A-Za-z0-9_.:@+-]{0,14}")
GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,10}")
ADDRESS = re.compile(r"[0-9a-fA-F:.]+")
PREFIX = re.compile(r"[0-9a-fA-F:.]+/(?:0|[1-9][0-9]{0,2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interception:
    """Which traffic goes through Envoy. Raises InterceptionError for anything that could not be a rule."""

    mode: Mode = "REDIRECT"
    """How inbound traffic reaches Envoy: by a changed destination, or with its addresses as they were (TPROXY)."""
    outbound_port: int = 15001
    inbound_port: int = 15006
    tunnel_port: int = 15008
    uids: tuple[int, ...] = (1337,)
    """Users whose traffic is Envoy's own."""
    gids: tuple[int, ...] = (1337,)
    inbound_ports: Literal["*"] | tuple[int, ...] = ()
    inbound_ports_exclude: tuple[int, ...] = ()
    """Only used when all inbound ports are captured."""
    outbound_ports: tuple[int, ...] = ()
    """Captured whatever their address."""
    outbound_ports_exclude: tuple[int, ...] = ()
    outbound_cidrs: Literal["*"] | tuple[str, ...] = ()
    outbound_cidrs_exclude: tuple[str, ...] = ()
    exclude_interfaces: tuple[str, ...] = ()
    """Nothing that comes or goes by them is captured."""
    virtual_interfaces: tuple[str, ...] = ()
    """Of virtual machines: what comes in there is their outbound traffic."""
    owner_groups: Literal["*"] | tuple[str, ...] = ALL
    """Groups, by name or number, whose outbound traffic is captured."""
    owner_groups_exclude: tuple[str, ...] = ()
    """Only used when all groups are captured."""
    redirect_dns: bool = False
    capture_all_dns: bool = False
    """All of port 53, not only what goes to ``dns_servers``."""
    dns_servers: tuple[str, ...] = ()
    """The resolvers of the workload, IPv4 and IPv6."""
    drop_invalid: bool = False
    """Drop packets that belong to no connection, which would be answered with a reset."""
    ipv6: bool = False
    loopback_cidr: str = "127.0.0.1/32"
    tproxy_mark: int = 1337
    tproxy_table: int = 133

    def __post_init__(self) -> None:
        if self.mode not in {"REDIRECT", "TPROXY"}:
            raise InterceptionError("-m", f"{self.mode!r} is no mode: REDIRECT or TPROXY")
        for flag, port in (
            ("-p", self.outbound_port),
            ("-z", self.inbound_port),
            ("-e", self.tunnel_port),
        ):
            _check_ports(flag, (port,))
        _check_ports("-b", () if self.inbound_ports == ALL else self.inbound_ports)
        _check_ports("-d", self.inbound_ports_exclude)
        _check_ports("-q", self.outbound_ports)
        _check_ports("-o", self.outbound_ports_exclude)
        _check_owners("-u", self.uids)
        _check_owners("-g", self.gids)
        if ALL in self.outbound_cidrs_exclude:
            raise InterceptionError(
                "-x", "* would exclude everything: leave -i empty to capture nothing outbound"
            )
        _check_cidrs("-i", () if self.outbound_cidrs == ALL else self.outbound_cidrs)
        _check_cidrs("-x", self.outbound_cidrs_exclude)
        _check_names("-c", self.exclude_interfaces, INTERFACE, "an interface's name")
        _check_names("-k", self.virtual_interfaces, INTERFACE, "an interface's name")
        if len(self.virtual_interfaces) * len(self.outbound_cidrs) > MOST_PAIRS:
            raise InterceptionError("-k", f"with -i these are more than {MOST_PAIRS} rules")
        self._check_groups()
        for server in self.dns_servers:
            _check_address(server)
        _check_count("--dns-servers", self.dns_servers)
        _check_loopback(self.loopback_cidr)
        self._check_tproxy()

    def _check_groups(self) -> None:
        include, exclude = "ISTIO_OUTBOUND_OWNER_GROUPS", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"
        if self.owner_groups != ALL:
            _check_names(include, self.owner_groups, GROUP, "a group's name or number")
            if len(self.owner_groups) > MOST_OWNER_GROUPS:
                raise InterceptionError(include, f"at most {MOST_OWNER_GROUPS} groups fit one rule")
        _check_names(exclude, self.owner_groups_exclude, GROUP, "a group's name or number")

    def _check_tproxy(self) -> None:
        if not 1 <= self.tproxy_mark <= LAST_MARK or self.tproxy_mark == OWN_CALL_MARK:
            raise InterceptionError(
                "-t", f"{self.tproxy_mark} is no mark: 1 to {LAST_MARK}, but not {OWN_CALL_MARK}"
            )
        if not 1 <= self.tproxy_table <= LAST_MARK or self.tproxy_table in RESERVED_TABLES:
            raise InterceptionError(
                "-r", f"{self.tproxy_table} is no routing table of one's own: for example 133"
            )

    @property
    def tproxy(self) -> bool:
        return self.mode == "TPROXY"

    @property
    def dns(self) -> bool:
        """Whether DNS is really captured: asked for, and it is known where queries go."""
        return self.redirect_dns and (self.capture_all_dns or bool(self.dns_servers))

    @property
    def captures_loopback(self) -> bool:
        """Whether a loopback range is among those to capture: then the application's own loopback calls are not left alone."""
        cidrs = () if self.outbound_cidrs == ALL else self.outbound_cidrs
        return any(ipaddress.ip_interface(cidr).ip.is_loopback for cidr in cidrs)


def _check_count(flag: str, values: tuple[object, ...]) -> None:
    if len(values) > MOST_VALUES:
        raise InterceptionError(flag, f"{len(values)} values, at most {MOST_VALUES}")


def _check_ports(flag: str, ports: tuple[int, ...]) -> None:
    _check_count(flag, ports)
    for port in ports:
        if not 1 <= port <= 65535:
            raise InterceptionError(flag, f"{port} is not a port: 1 to 65535")


def _check_owners(flag: str, ids: tuple[int, ...]) -> None:
    """An empty list would send Envoy's own traffic back to Envoy, for ever."""
    _check_count(flag, ids)
    if not ids:
        raise InterceptionError(flag, "nothing given: Envoy's own traffic must be told apart")
    for owner in ids:
        if not 0 <= owner < LAST_MARK:
            raise InterceptionError(flag, f"{owner} is not a user's or group's number")


def _check_cidrs(flag: str, cidrs: tuple[str, ...]) -> None:
    _check_count(flag, cidrs)
    for cidr in cidrs:
        if not PREFIX.fullmatch(cidr) or not _parses(cidr):
            raise InterceptionError(
                flag,
                f"{cidr!r} is not a range of addresses: 10.0.0.0/8, 192.0.2.1/32, 2001:db8::/32",
            )


def _parses(address: str) -> bool:
    try:
        ipaddress.ip_interface(address)
    except ValueError:
        return False
    return True


def _check_names(flag: str, names: tuple[str, ...], shape: re.Pattern[str], what: str) -> None:
    _check_count(flag, names)
    for name in names:
        if not shape.fullmatch(name):
            raise InterceptionError(flag, f"{name!r} is not {what}")


def _check_address(text: str) -> None:
    """No zone: iptables has no rule for one."""
    if not ADDRESS.fullmatch(text) or not _parses(text):
        raise InterceptionError("--dns-servers", f"{text!r} is not an IP address")


def _check_loopback(cidr: str) -> None:
    flag = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"
    _check_cidrs(flag, (cidr,))
    network = ipaddress.ip_interface(cidr)
    if network.version != 4 or not network.ip.is_loopback or network.network.prefixlen < 8:
        raise InterceptionError(flag, f"{cidr} is not a range within 127.0.0.0/8")
