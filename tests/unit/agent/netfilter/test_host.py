"""Which of the two iptables is used, and what one needs to use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.agent.netfilter.errors import NetfilterError
from services.agent.netfilter.host import CommandError, Host, choose, missing_rights, require_tools
from services.agent.netfilter.state import Chains

Tables = dict[str, Chains]
EMPTY: Tables = {"nat": {"PREROUTING": ()}}
RULES: Tables = {"nat": {"PREROUTING": ("-j ACCEPT", "-j ACCEPT")}}
ONE: Tables = {"filter": {"INPUT": ("-j ACCEPT",)}}
OURS: Tables = {"nat": {"ISTIO_OUTPUT": ()}}


def test_what_is_forced_is_used():
    assert choose({"nft": RULES, "legacy": EMPTY}, "legacy") == "legacy"


def test_what_is_forced_must_be_there():
    with pytest.raises(NetfilterError, match="iptables-legacy-restore is not installed"):
        choose({"nft": RULES}, "legacy")


def test_where_our_rules_are_comes_first():
    assert choose({"nft": RULES, "legacy": OURS}, None) == "legacy"


def test_then_where_more_rules_are():
    assert choose({"nft": ONE, "legacy": RULES}, None) == "legacy"
    assert choose({"legacy": ONE, "nft": RULES}, None) == "nft"


def test_then_the_machines_default():
    assert choose({"legacy": EMPTY, "nft": {}}, None) == "legacy"


def test_nothing_installed_is_said_with_what_to_do():
    with pytest.raises(NetfilterError, match="apt-get install iptables"):
        choose({}, None)


def test_root_needs_effective_and_others_ambient_capabilities():
    status = "CapEff:\t0000000000003000\nCapAmb:\t0000000000000000\n"
    assert missing_rights(status, 0) == ()
    assert missing_rights(status, 1000) == ("NET_ADMIN", "NET_RAW")
    assert missing_rights("CapEff:\t0000000000001000\n", 0) == ("NET_RAW",)
    assert missing_rights("", 0) == ("NET_ADMIN", "NET_RAW")


def test_a_missing_ip_is_said_only_where_it_is_needed(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    require_tools(routing=False)
    with pytest.raises(NetfilterError, match="apt-get install iproute2"):
        require_tools(routing=True)


def test_a_command_that_fails_tells_what_it_said():
    with pytest.raises(CommandError, match=r"`sh -c .*`: no such thing"):
        Host().run(("sh", "-c", "echo no such thing >&2; exit 3"))
    with pytest.raises(CommandError, match="restore: line 7: failed"):
        Host().run(("sh", "-c", "printf 'restore:\\nline 7: failed\\n' >&2; exit 1"))
    with pytest.raises(CommandError, match="exit 4"):
        Host().run(("sh", "-c", "exit 4"))
    with pytest.raises(CommandError, match="No such file"):
        Host().run(("/nonexistent/iptables",))


def test_a_change_under_way_elsewhere_is_waited_for_and_then_said(tmp_path: Path, monkeypatch):
    file = tmp_path / "ns"
    file.touch()
    host = Host((), file)
    monkeypatch.setattr("services.agent.netfilter.host.LOCK_WAIT_S", 0)
    with host.alone(), pytest.raises(NetfilterError, match="another change"), host.alone():
        pass
    with host.alone():
        pass
