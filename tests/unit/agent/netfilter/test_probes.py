"""Interception with traffic: a real kernel, a real Envoy, and calls whose whole path is known.

Each call must get the right answer, the server must see the right caller, and exactly the right listener of Envoy must have
taken a connection.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from services.agent.netfilter.apply import apply
from services.agent.netfilter.host import Kind
from services.agent.netfilter.interception import AGENT_PORTS, ALL, DNS_PORT, Interception, Mode
from services.agent.netfilter.rules import Family
from tests.unit.agent.netfilter.lab import (
    APPLICATION,
    ENVOY,
    LOOPBACK,
    PEER,
    POD,
    SELF,
    Lab,
    User,
    address_family,
    envoy_config,
    lab,
    within,
)

pytestmark = pytest.mark.root

LOCAL_RESOLVER = "127.0.0.53"
FAMILIES = [pytest.param(family, id=f"ipv{family}") for family in Family]


def interception(mode: Mode) -> Interception:
    return Interception(
        mode=mode,
        inbound_ports=ALL,
        inbound_ports_exclude=AGENT_PORTS,
        outbound_cidrs=ALL,
        redirect_dns=True,
        dns_servers=(*PEER.values(), LOCAL_RESOLVER),
        ipv6=True,
    )


@dataclass(frozen=True, slots=True)
class Intercepted:
    lab: Lab
    mode: Mode
    envoy: User

    def client_seen(self, family: Family) -> str:
        """Whom the application sees when the peer calls it."""
        return PEER[family] if self.mode == "TPROXY" else SELF[family]


MODES: list[tuple[Mode, Kind]] = [
    ("REDIRECT", "nft"),
    ("REDIRECT", "legacy"),
    ("TPROXY", "nft"),
    ("TPROXY", "legacy"),
]


@pytest.fixture(scope="module", params=MODES, ids=lambda pair: f"{pair[0].lower()}-{pair[1]}")
def intercepted(request) -> Iterator[Intercepted]:
    mode, kind = request.param
    # TPROXY: root for IP_TRANSPARENT; it is told apart by its group.
    envoy = User(0 if mode == "TPROXY" else ENVOY, ENVOY)
    with lab() as made:
        made.serve(made.pod, "application", 8080)
        made.serve(made.pod, "application-raw", 7070)
        made.serve(made.peer, "peer-80", 80)
        made.serve(made.peer, "peer-9000", 9000)
        apply(made.host, interception(mode), forced=kind)
        assert made.start_envoy(envoy_config(tproxy=mode == "TPROXY"), envoy), made.envoy_log
        yield Intercepted(made, mode, envoy)


@dataclass(frozen=True, slots=True)
class Probe:
    caller: str
    """peer, application or envoy."""
    to: str
    """pod, peer or loopback."""
    port: int
    server: str
    through: str | None
    """What Envoy's HTTP listeners add."""
    listener: str
    """The one that takes the connection; empty: none."""
    sees: str
    """Whom the server sees: client (kept or not, by mode), self, pod or loopback; empty: does not matter."""


PROBES = {
    "inbound HTTP, matched filter chain": Probe("peer", "pod", 8080, "application", "inbound-8080", "15006", "client"),
    "inbound TCP, default filter chain": Probe("peer", "pod", 7070, "application-raw", None, "15006", "client"),
    "outbound TCP passthrough": Probe("application", "peer", 9000, "peer-9000", None, "15001", "pod"),
    "outbound HTTP by the listener of port 80": Probe("application", "peer", 80, "peer-80", "outbound-80", "80", "pod"),
    "envoy's own outbound bypasses": Probe("envoy", "peer", 9000, "peer-9000", None, "", "pod"),
    "the application's call of its own address bypasses": Probe("application", "pod", 8080, "application", None, "", "pod"),
    "envoy's call of its own address is inbound": Probe("envoy", "pod", 8080, "application", "inbound-8080", "15006", "own"),
    "the application's call of loopback bypasses": Probe("application", "loopback", 8080, "application", None, "", "loopback"),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PROBES)
def test_a_call_takes_its_way(intercepted, family, name):
    probe = PROBES[name]
    made: Lab = intercepted.lab
    users = {"application": User(APPLICATION, APPLICATION), "envoy": intercepted.envoy}
    address = {"pod": POD, "peer": PEER, "loopback": LOOPBACK}[probe.to][family]
    before = made.taken(family)
    answer = made.call(
        made.peer if probe.caller == "peer" else made.pod,
        users.get(probe.caller, User(APPLICATION, APPLICATION)),
        address,
        probe.port,
    )
    after = made.taken(family)
    seen = {
        "client": intercepted.client_seen(family),
        "pod": POD[family],
        "own": POD[family] if intercepted.mode == "TPROXY" else SELF[family],
        "loopback": LOOPBACK[family],
    }[probe.sees]
    assert answer.startswith("{"), f"{answer}\n{made.envoy_log}"
    assert json.loads(answer) == {"server": probe.server, "peer": seen, "through": probe.through}
    took = {port for port, count in after.items() if count > before[port]}
    assert took == ({probe.listener} if probe.listener else set())


RESOLVERS = [
    pytest.param(Family.V4, PEER[Family.V4], id="ipv4"),
    pytest.param(Family.V6, PEER[Family.V6], id="ipv6"),
    pytest.param(Family.V4, LOCAL_RESOLVER, id="local"),
]


@pytest.mark.parametrize(("family", "resolver"), RESOLVERS)
def test_a_dns_query_by_udp_goes_to_the_agent_and_the_agents_own_to_the_resolver(
    intercepted, family, resolver
):
    """The answer comes from the resolver's address, as the application's connected socket demands."""
    made: Lab = intercepted.lab
    agent_user, application = User(ENVOY, ENVOY), User(APPLICATION, APPLICATION)
    upstream_host = made.pod if resolver == LOCAL_RESOLVER else made.peer
    kind = address_family(family)
    upstream = within(upstream_host, application, lambda: _bound(kind, resolver, 53))
    # The agent listens on loopback, where redirected queries arrive.
    agent = within(made.pod, agent_user, lambda: _bound(kind, LOOPBACK[family], DNS_PORT))
    onward = within(made.pod, agent_user, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    client = within(made.pod, application, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    with upstream, agent, onward, client:
        for one in (upstream, agent, onward, client):
            one.settimeout(5)
        client.connect((resolver, 53))
        onward.connect((resolver, 53))
        for number in range(3):
            client.send(b"query %d" % number)
            asked, who = agent.recvfrom(512)
            onward.send(b"agent's " + asked)
            forwarded, agent_seen = upstream.recvfrom(512)
            upstream.sendto(b"answer to " + forwarded, agent_seen)
            agent.sendto(onward.recv(512), who)
            assert client.recv(512) == b"answer to agent's query %d" % number


@pytest.mark.parametrize(("family", "resolver"), RESOLVERS)
def test_a_dns_query_by_tcp_goes_to_the_agent(intercepted, family, resolver):
    made: Lab = intercepted.lab
    kind = address_family(family)
    agent = within(
        made.pod,
        User(ENVOY, ENVOY),
        lambda: socket.create_server((LOOPBACK[family], DNS_PORT), family=kind),
    )
    with agent:
        agent.settimeout(5)

        def answer() -> None:
            with agent.accept()[0] as connection:
                connection.sendall(b"by the agent")

        answering = threading.Thread(target=answer)
        answering.start()
        client = within(
            made.pod,
            User(APPLICATION, APPLICATION),
            lambda: socket.create_connection((resolver, 53), 5),
        )
        with client:
            assert client.recv(100) == b"by the agent"
        answering.join()


def _bound(kind: socket.AddressFamily, host: str, port: int) -> socket.socket:
    made = socket.socket(kind, socket.SOCK_DGRAM)
    made.bind((host, port))
    return made


def test_tproxy_needs_the_right_to_be_transparent():
    with lab() as made:
        assert not made.start_envoy(envoy_config(tproxy=True), User(ENVOY, ENVOY))
        assert "IP_TRANSPARENT" in made.envoy_log


def test_tproxy_with_envoys_usual_user_reaches_nobody():
    """Its connection to the application has the application's address as destination and goes over loopback: it looks like
    Envoy's call of its own address, and the rule for Envoy's user sends it back to Envoy.
    """
    with lab() as made:
        made.serve(made.pod, "application", 8080)
        apply(made.host, interception("TPROXY"), forced="nft")
        envoy = User(ENVOY, ENVOY)
        assert made.start_envoy(envoy_config(tproxy=True), envoy, net_admin=True), made.envoy_log
        answer = made.call(made.peer, User(APPLICATION, APPLICATION), POD[Family.V4], 8080)
        assert not answer.startswith("{")
