"""Registries as the settings name them.

file:PATH    dns:NAME[:PORT][/PROTOCOL]    consul:http://HOST:PORT[?dc=NAME]    mesh
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from services.pilot.registry.consul_client import Consul, ConsulRegistry
from services.pilot.registry.dns import PROTOCOLS, DnsName, DnsRegistry
from services.pilot.registry.files import FileRegistry
from services.pilot.registry.protocol import MESH, Registry, Sources
from services.pilot.registry.resolver import Resolver, Server, system_servers
from windward.config import common
from windward.config.hosts import is_dns_label, is_ip

KNOWN = "file:PATH, dns:NAME[:PORT], consul:http://HOST:PORT or mesh"


def parse_sources(
    settings: Sequence[str], servers: Sequence[Server] = (), token_file: str = ""
) -> Sources:
    """``servers``: DNS servers, none for the machine's. Raises ValueError that names what is wrong and how it is written."""
    resolver = Resolver(
        (lambda: servers) if servers else system_servers, lambda: secrets.randbelow(65536)
    )
    order: list[str] = []
    registries: list[Registry] = []
    for text in settings:
        scheme, _, rest = text.partition(":")
        made: Registry
        if text == MESH:
            order.append(MESH)
            continue
        if scheme == "file" and rest:
            made = FileRegistry(Path(rest))
        elif scheme == "dns":
            made = DnsRegistry(dns_name(rest), resolver, random.random)
        elif scheme == "consul":
            made = ConsulRegistry(_consul(rest, token_file), random.random)
        else:
            raise ValueError(f"{text!r} is no registry: write {KNOWN}")
        order.append(made.name)
        registries.append(made)
    twice = [name for name in order if order.count(name) > 1]
    if twice:
        raise ValueError(f"{twice[0]} stands twice")
    return Sources(tuple(registries), tuple(order if MESH in order else [MESH, *order]))


def dns_name(text: str) -> DnsName:
    """``db.example.com:5432``, ``_http._tcp.web.example.com``, ``web.example.com:80/http``. Raises ValueError."""
    place, slash, protocol = text.partition("/")
    name, colon, number = place.removesuffix(".").partition(":")
    name = name.removesuffix(".").lower()
    labels = name.split(".")
    srv = name.startswith("_")
    host = labels[2:] if srv else labels
    if srv and not (len(labels) > 2 and labels[1] in {"_tcp", "_udp"} and labels[0][1:]):
        raise ValueError(f"dns:{text}: an SRV name is written _service._tcp.name")
    if not host or is_ip(".".join(host)) or not all(map(is_dns_label, host)):
        raise ValueError(f"dns:{text}: {'.'.join(host)!r} is not a DNS name")
    if colon and not (number.isascii() and number.isdecimal() and 0 < int(number[:6]) < 65536):
        raise ValueError(f"dns:{text}: {number!r} is not a port")
    if not srv and not colon:
        raise ValueError(f"dns:{text}: needs a port, e.g. dns:{name}:5432")
    said = protocol.upper() if slash else PROTOCOLS.get(labels[0][1:], "TCP") if srv else "TCP"
    if said not in common.PROTOCOLS:
        raise ValueError(f"dns:{text}: {protocol!r} is not a protocol")
    return DnsName(name, int(number) if colon else 0, said)


def _consul(text: str, token_file: str) -> Consul:
    url = urlsplit(text)
    try:
        port = url.port
    except ValueError:
        port = None
    if url.scheme not in {"http", "https"} or not url.hostname or port is None or url.username:
        raise ValueError(f"consul:{text}: write consul:http://HOST:PORT")
    if url.path.strip("/") or url.fragment or set(parse_qs(url.query)) - {"dc"}:
        raise ValueError(f"consul:{text}: only ?dc=NAME may follow the port")
    datacenter = parse_qs(url.query).get("dc", [""])[0]
    if datacenter and not is_dns_label(datacenter):
        raise ValueError(f"consul:{text}: {datacenter!r} is not a datacenter's name")
    return Consul(f"{url.scheme}://{url.netloc}", datacenter, _token(token_file))


def _token(file: str) -> Callable[[], str]:
    """Reads the token when it is needed; a missing file fails the question, not the process."""
    return (lambda: Path(file).read_text().strip()) if file else str


def dns_server(text: str) -> Server:
    """``10.0.0.2``, ``10.0.0.2:5353``, ``[::1]:53``. Raises ValueError."""
    host, port = text, "53"
    if text.startswith("[") and "]" in text:
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not is_ip(host) or not (port.isdecimal() and 0 < int(port[:6]) < 65536):
        raise ValueError(f"{text!r} is not a DNS server: write 10.0.0.2, 10.0.0.2:5353 or [::1]:53")
    return (host, int(port))
