"""Apply, check and clean on a real kernel, in network namespaces: idempotent, whole or not at all, nothing else touched."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.agent.netfilter.apply import apply, check, clean, try_rules
from services.agent.netfilter.errors import NetfilterError
from services.agent.netfilter.host import CommandError, Host, Kind, backends
from services.agent.netfilter.interception import AGENT_PORTS, ALL, Interception
from services.agent.netfilter.restore import restore_text
from services.agent.netfilter.rules import Family, Rule, rules_of
from services.agent.netfilter.state import PROBE
from tests.unit.agent.netfilter.conftest import Namespace

pytestmark = pytest.mark.root

SIDECAR = Interception(inbound_ports=ALL, inbound_ports_exclude=AGENT_PORTS, outbound_cidrs=ALL)
FULL = Interception(
    mode="TPROXY",
    inbound_ports=ALL,
    inbound_ports_exclude=AGENT_PORTS,
    outbound_ports=(9000,),
    outbound_ports_exclude=(5432,),
    outbound_cidrs=("10.1.2.3/8", "2001:db8::/32", "127.1.2.3/32"),
    outbound_cidrs_exclude=("10.9.0.0/16", "2001:db8:1::/48"),
    exclude_interfaces=("eth5", "eth9"),
    virtual_interfaces=("tap0", "tap1"),
    owner_groups=("root", "202"),
    redirect_dns=True,
    dns_servers=("10.0.0.10", "127.0.0.53", "2001:db8::10"),
    drop_invalid=True,
    ipv6=True,
    loopback_cidr="127.0.0.1/8",
    tproxy_mark=77,
    tproxy_table=78,
)
OTHERS = """
iptables-nft -t nat -A PREROUTING -i eth5 -j RETURN
iptables-nft -t nat -N OTHERS
iptables-nft -t nat -A OTHERS -p tcp --dport 81 -j REDIRECT --to-ports 82
iptables-nft -t nat -A OUTPUT -d 192.0.2.1 -j OTHERS
iptables-nft -t mangle -A OUTPUT -o eth9 -j MARK --set-mark 5
iptables-nft -t raw -N ISTIO_OTHERS
iptables-nft -A INPUT -i eth8 -p tcp -j DROP
ip rule add fwmark 5 lookup 55
ip route add local default dev lo table 55
"""
KINDS: tuple[Kind, ...] = ("nft", "legacy")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", [SIDECAR, FULL], ids=["sidecar", "full"])
def test_applied_it_is_as_wanted_and_applied_again_nothing_happens(namespace, wanted, kind):
    assert check(namespace.host, wanted, kind)
    assert apply(namespace.host, wanted, forced=kind).loaded
    assert check(namespace.host, wanted, kind) == []
    before = namespace.rules(), namespace.routing()
    assert apply(namespace.host, wanted, forced=kind).loaded == ()
    assert (namespace.rules(), namespace.routing()) == before


def test_clean_takes_all_of_ours_and_nothing_else(namespace):
    namespace.sh(OTHERS)
    before = namespace.rules(), namespace.routing()
    apply(namespace.host, FULL)
    assert clean(namespace.host, Interception())
    assert (namespace.rules(), namespace.routing()) == before
    assert clean(namespace.host, Interception()) == []


def test_other_settings_replace_the_old_ones_and_leave_nothing_of_them(namespace):
    namespace.sh(OTHERS)
    others = namespace.rules(), namespace.routing()
    apply(namespace.host, SIDECAR)
    direct = namespace.rules(), namespace.routing()
    done = apply(namespace.host, FULL)
    assert any("eth9" in line for line in check(namespace.host, SIDECAR))
    assert any("unexpected: -p tcp -j ISTIO_INBOUND" in line for line in done.replaced)
    apply(namespace.host, SIDECAR)
    assert namespace.rules() == direct[0]
    assert namespace.routing() == direct[1]
    clean(namespace.host, Interception())
    assert (namespace.rules(), namespace.routing()) == others


def test_rules_in_the_other_iptables_are_found_and_replaced(namespace):
    apply(namespace.host, SIDECAR, forced="legacy")
    assert any(line.startswith("IPv4 (legacy)") for line in check(namespace.host, SIDECAR, "nft"))
    apply(namespace.host, SIDECAR, forced="nft")
    assert check(namespace.host, SIDECAR, "nft") == []
    assert "ISTIO" not in namespace.sh("iptables-legacy-save")


@pytest.mark.parametrize("kind", KINDS)
def test_the_iptables_that_is_in_use_is_used(namespace, kind):
    namespace.sh(f"iptables-{kind} -A INPUT -i eth7 -j ACCEPT")
    apply(namespace.host, SIDECAR)
    assert "ISTIO_OUTPUT" in namespace.sh(f"iptables-{kind}-save")
    other = "legacy" if kind == "nft" else "nft"
    assert "ISTIO" not in namespace.sh(f"iptables-{other}-save")


BREAKS = (
    (
        "iptables -t nat -D ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        "nat ISTIO_OUTPUT: missing: -d 127.0.0.1/32 -j RETURN",
    ),
    (
        "iptables -t nat -I ISTIO_INBOUND -p tcp --dport 9 -j RETURN",
        "nat ISTIO_INBOUND: unexpected: -p tcp -m tcp --dport 9 -j RETURN",
    ),
    ("iptables -t nat -D OUTPUT -j ISTIO_OUTPUT", "nat OUTPUT: missing: -j ISTIO_OUTPUT"),
    ("iptables -t nat -A OUTPUT -j ISTIO_OUTPUT", "nat OUTPUT: unexpected: -j ISTIO_OUTPUT"),
    (
        "iptables -t nat -D ISTIO_INBOUND 1; iptables -t nat -A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN",
        "not in this order",
    ),
    (
        "iptables -N WINDWARD_GUARD; iptables -A WINDWARD_GUARD -j DROP; iptables -I INPUT -j WINDWARD_GUARD",
        "left over from an apply that was interrupted",
    ),
    ("ip6tables -t nat -N ISTIO_OUTPUT", "IPv6 (nft) nat ISTIO_OUTPUT: unexpected chain"),
)


@pytest.mark.parametrize(("break_it", "said"), BREAKS)
def test_check_says_what_differs_and_apply_mends_it(namespace, break_it, said):
    apply(namespace.host, SIDECAR)
    whole = namespace.rules()
    namespace.sh(break_it)
    assert any(said in line for line in check(namespace.host, SIDECAR))
    assert apply(namespace.host, SIDECAR).replaced
    assert namespace.rules() == whole


def test_missing_routing_is_said_and_put_back(namespace):
    apply(namespace.host, FULL)
    namespace.sh(
        "ip -6 rule del fwmark 77 lookup 78; ip route flush table 78; ip addr del ::6/128 dev lo"
    )
    assert check(namespace.host, FULL) == [
        "routing: missing: -6 addr add ::6/128 dev lo",
        "routing: missing: -4 route add local default dev lo table 78",
        "routing: missing: -6 rule add fwmark 77 lookup 78",
    ]
    apply(namespace.host, FULL)
    assert check(namespace.host, FULL) == []


def test_without_reconcile_other_rules_are_left_and_refused(namespace):
    apply(namespace.host, SIDECAR)
    before = namespace.rules()
    with pytest.raises(NetfilterError, match="--reconcile=false"):
        apply(namespace.host, FULL, reconcile=False)
    assert namespace.rules() == before


def test_forced_it_is_loaded_again(namespace):
    apply(namespace.host, SIDECAR)
    before = namespace.rules()
    assert apply(namespace.host, SIDECAR, force=True).loaded
    assert namespace.rules() == before


@dataclass(frozen=True, slots=True)
class FailsOnce(Host):
    """A machine on which the first command with a text in it is one that the real kernel refuses."""

    text: str = ""
    failed: list[str] = field(default_factory=list)

    def run(self, command: tuple[str, ...], stdin: str = "") -> str:
        if not self.failed and (self.text in stdin or self.text in " ".join(command)):
            self.failed.append(self.text)
            broken = stdin.replace("COMMIT", "-A BROKEN -j NONE\nCOMMIT") or "broken\n"
            return Host.run(self, ("iptables-restore", "--noflush"), broken)
        return Host.run(self, command, stdin)


ANOTHER = replace(FULL, uids=(1000,), tproxy_mark=99, exclude_interfaces=("eth5",))


@pytest.mark.parametrize(
    "text",
    ["ISTIO_OUTPUT_DNS -p udp --sport 15053", "ISTIO_OUTPUT -o lo -s ::6/128", "-6 rule add"],
)
@pytest.mark.parametrize("before", [None, SIDECAR, ANOTHER], ids=["none", "sidecar", "tproxy"])
def test_a_failure_half_way_leaves_all_as_it_was(namespace, before, text):
    namespace.sh(OTHERS)
    if before is not None:
        apply(namespace.host, before)
    was = namespace.rules(), namespace.routing()
    with pytest.raises(NetfilterError, match="nothing changed"):
        apply(FailsOnce(*namespace_of(namespace), text), FULL)
    assert (namespace.rules(), namespace.routing()) == was


@dataclass(frozen=True, slots=True)
class InterruptedAt(Host):
    """A machine on which somebody presses Ctrl-C when a text is loaded."""

    text: str = ""

    def run(self, command: tuple[str, ...], stdin: str = "") -> str:
        if self.text in stdin:
            raise KeyboardInterrupt
        return Host.run(self, command, stdin)


def test_interrupted_half_way_all_is_as_it_was(namespace):
    apply(namespace.host, ANOTHER)
    was = namespace.rules(), namespace.routing()
    with pytest.raises(KeyboardInterrupt):
        apply(
            InterruptedAt(
                *namespace_of(namespace),
                "ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --uid-owner 1337",
            ),
            FULL,
        )
    assert (namespace.rules(), namespace.routing()) == was


def test_while_rules_are_replaced_nothing_passes(namespace):
    """Seen from within: the guard stands before the first table changes, and is gone in the end."""
    seen: list[str] = []

    @dataclass(frozen=True, slots=True)
    class Watched(Host):
        def run(self, command: tuple[str, ...], stdin: str = "") -> str:
            if command[0] == "iptables-restore" and "-X ISTIO_OUTPUT\n" in stdin:
                seen.append(namespace.sh("iptables-save -t filter"))
            return Host.run(self, command, stdin)

    apply(namespace.host, SIDECAR)
    apply(Watched(*namespace_of(namespace)), replace(SIDECAR, outbound_cidrs=()))
    [during] = seen
    for chain in ("INPUT", "FORWARD", "OUTPUT"):
        assert f"-A {chain} -j WINDWARD_GUARD" in during
    assert "-A WINDWARD_GUARD -p tcp -j DROP" in during
    assert "WINDWARD" not in namespace.rules()


def test_ipv6_that_is_switched_off_is_said_before_anything(namespace):
    namespace.sh("echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6")
    before = namespace.rules()
    with pytest.raises(NetfilterError, match=r"IPv6 is switched off here.*--ipv6 off"):
        apply(namespace.host, FULL)
    assert namespace.rules() == before


def test_comments_of_others_in_any_bytes_do_no_harm(namespace):
    namespace.sh("iptables -A INPUT -m comment --comment \"$(printf 'caf\\351')\" -j ACCEPT")
    apply(namespace.host, SIDECAR)
    assert check(namespace.host, SIDECAR) == []
    clean(namespace.host, SIDECAR)


def namespace_of(namespace: Namespace) -> tuple[tuple[str, ...], Path]:
    return namespace.host.enter, namespace.host.namespace


def test_rules_that_another_tool_loaded_are_ours_and_its_own_are_not(namespace):
    namespace.sh(OTHERS)
    others = namespace.rules()
    foreign = Interception(mode="TPROXY", inbound_ports=ALL, exclude_interfaces=("eth3",))
    namespace.sh("iptables-restore --noflush", restore_text(rules_of(foreign, Family.V4)))
    apply(namespace.host, SIDECAR)
    assert check(namespace.host, SIDECAR) == []
    clean(namespace.host, SIDECAR)
    namespace.sh("iptables-restore --noflush", restore_text(rules_of(foreign, Family.V4)))
    clean(namespace.host, foreign)
    assert "ISTIO_TPROXY" not in namespace.rules()
    assert set(others.splitlines()) <= set(namespace.rules().splitlines())


def test_what_the_kernel_refuses_is_named_before_anything_is_done(namespace):
    backend = backends(namespace.host, Family.V4)["nft"]
    with pytest.raises(CommandError):
        try_rules(backend, "nat", [Rule("nat", PROBE, "-p tcp -j TPROXY --on-port 1")])
    assert PROBE not in namespace.rules()


def test_two_at_once_wait_for_one_another(namespace):
    with namespace.host.alone():
        waiting = subprocess.Popen(
            ["ip", "netns", "exec", namespace.name, "flock", "--nonblock", "/proc/self/ns/net", "true"]
        )  # fmt: skip
        assert waiting.wait(10) != 0
    assert (
        subprocess.run(
            ["flock", "--nonblock", f"/run/netns/{namespace.name}", "true"], check=False
        ).returncode
        == 0
    )


ports = st.lists(st.integers(1, 65535), max_size=3).map(tuple)
ids = st.lists(st.integers(0, 99999), min_size=1, max_size=2).map(tuple)
v4 = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}")
v6 = st.tuples(st.ip_addresses(v=6), st.integers(0, 128)).map(lambda pair: f"{pair[0]}/{pair[1]}")
cidrs = st.lists(v4 | v6, max_size=3).map(tuple)
names = st.lists(st.sampled_from(["eth0", "tap+", "br-1.7", "v@x"]), unique=True, max_size=2).map(
    tuple
)
interceptions = st.builds(
    Interception,
    mode=st.sampled_from(["REDIRECT", "TPROXY"]),
    uids=ids, gids=ids,
    inbound_ports=st.just(ALL) | ports, inbound_ports_exclude=ports,
    outbound_ports=ports, outbound_ports_exclude=ports,
    outbound_cidrs=st.just(ALL) | cidrs, outbound_cidrs_exclude=cidrs,
    exclude_interfaces=names, virtual_interfaces=names,
    owner_groups=st.just(ALL) | st.just(("root", "7")), owner_groups_exclude=st.just(()) | st.just(("9",)),
    redirect_dns=st.booleans(), capture_all_dns=st.booleans(),
    dns_servers=st.lists(st.ip_addresses().map(str), max_size=2).map(tuple),
    drop_invalid=st.booleans(), ipv6=st.booleans(),
)  # fmt: skip


@given(wanted=interceptions, kind=st.sampled_from(KINDS))
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_is_wanted_is_loaded_found_equal_and_cleaned(namespace: Namespace, wanted, kind):
    apply(namespace.host, wanted, forced=kind)
    assert check(namespace.host, wanted, kind) == []
    clean(namespace.host, Interception())
    assert not any(word in namespace.rules() for word in ("ISTIO", "WINDWARD", "-A "))
