"""Rules that mean the same have the same form, and others do not. Against a kernel: test_apply.py."""

from __future__ import annotations

import pytest

from services.agent.netfilter.canonical import canonical
from services.agent.netfilter.errors import NetfilterError


@pytest.mark.parametrize(
    ("written", "saved"),
    [
        ("-p tcp --dport 80 -j RETURN", "-p tcp -m tcp --dport 80 -j RETURN"),
        ("-o lo ! -d 127.0.0.1/32 -j X", "! -d 127.0.0.1/32 -o lo -j X"),
        ("-d 10.1.2.3/8 -j X", "-d 10.0.0.0/8 -j X"),
        ("-d 0.0.0.0/0 -j X", "-j X"),
        ("-d ::127.0.0.53/128 -j X", "-d ::7f00:35/128 -j X"),
        ("-j MARK --set-mark 1338", "-j MARK --set-xmark 0x53a/0xffffffff"),
        ("-p udp -j REDIRECT --to-port 15053", "-p udp -j REDIRECT --to-ports 15053"),
        (
            "-j CONNMARK --save-mark",
            "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        ),
        (
            "-p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port 1",
            "-p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff",
        ),
        (
            "-m conntrack --ctstate RELATED,ESTABLISHED -j X",
            "-m conntrack --ctstate ESTABLISHED,RELATED -j X",
        ),
        ("-m owner --gid-owner root -j X", "-m owner --gid-owner 0 -j X"),
    ],
)
def test_spelling_does_not_matter(written, saved):
    assert canonical(written) == canonical(saved)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-d 10.0.0.0/8 -j X", "! -d 10.0.0.0/8 -j X"),
        ("-d 10.0.0.0/8 -j X", "-s 10.0.0.0/8 -j X"),
        ("! -d 0.0.0.0/0 -j X", "-j X"),
        ("-m mark --mark 1 -j X", "-m connmark --mark 1 -j X"),
        ("-m mark --mark 1 -j X", "-m mark --mark 0x1/0xff -j X"),
        ("-j CONNMARK --save-mark", "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff"),
        ("-m owner --uid-owner 1 -j X", "-m owner --gid-owner 1 -j X"),
        ("-p tcp --dport 80 -j X", "-p udp --dport 80 -j X"),
        ("-j X", "-j Y"),
    ],
)
def test_meaning_does(one, other):
    assert canonical(one) != canonical(other)


def test_an_unknown_group_is_said():
    with pytest.raises(NetfilterError, match="no group nobody-at-all here: give its number"):
        canonical("-m owner --gid-owner nobody-at-all -j RETURN")
