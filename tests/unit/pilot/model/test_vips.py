import dataclasses
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pilot.model import vips as vips_module
from services.pilot.model.service import Service
from services.pilot.model.vips import MOST_PROBES, Vips, wants_vip
from windward.config.service_entry import Resolution
from windward.xds.resource import Origin

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def at(minute: int) -> datetime:
    return EPOCH + timedelta(minutes=minute)


def every(hosts: dict[str, int]) -> dict[str, datetime]:
    return {host: at(minute) for host, minute in hosts.items()}


def given_out(vips: Vips) -> dict[str, tuple[str, ...]]:
    return {
        host: vips.addresses(host) for host in vips.tried if not host.startswith(vips_module.PINNED)
    }


@pytest.fixture
def crowded(monkeypatch):
    """Seven offsets, four tries: hosts meet at once, and some find nothing."""
    monkeypatch.setattr(vips_module, "OFFSETS", 7)
    monkeypatch.setattr(vips_module, "_probes", lambda name: 1 if name[0] == "=" else 4)


def by_age(hosts: dict[str, datetime], pinned: Iterable[int] = ()) -> dict[str, tuple[str, ...]]:
    """What the law says, computed the slow way: the oldest first, each the first free one of its sequence."""
    taken, found = set(pinned), {}
    for host, _ in sorted(hosts.items(), key=lambda item: (item[1], item[0])):
        tries = [vips_module._probe(host, index) for index in range(vips_module._probes(host))]
        index = next((i for i, offset in enumerate(tries) if offset not in taken), MOST_PROBES)
        found[host] = dataclasses.replace(Vips(), tried={host: index}).addresses(host)
        if index < MOST_PROBES:
            taken.add(tries[index])
    return found


def test_a_host_has_an_address_of_each_range_that_its_name_decides():
    one = Vips().changed(every({"a.example.com": 0}))
    v4, v6 = one.addresses("a.example.com")
    assert ip_address(v4) in ip_network("240.240.0.0/16")
    assert ip_address(v6) in ip_network("2001:2::/48")
    # Written down: another release, or replica, must not give another one.
    assert (v4, v6) == ("240.240.8.254", "2001:2::f0f0:8fe")
    assert one.moved == {"a.example.com"}
    assert one.addresses("b.example.com") == ()


def test_thousands_of_hosts_have_thousands_of_addresses():
    hosts = every({f"h{number}.example.com": number for number in range(3000)})
    made = given_out(Vips().changed(hosts))
    assert len({address for both in made.values() for address in both}) == 6000
    assert made == by_age(hosts)


def test_who_comes_later_moves_nobody():
    hosts = every({f"h{number}.example.com": number for number in range(2000)})
    before = Vips().changed(hosts)
    after = before.changed(
        every({f"new{number}.example.com": 5000 + number for number in range(500)})
    )
    assert {host: after.addresses(host) for host in hosts} == given_out(before)
    assert after.moved == {f"new{number}.example.com" for number in range(500)}


def test_nothing_changed_is_the_same_value():
    before = Vips().changed(every({"a": 0}))
    settled = before.changed(every({"a": 0}), ["b"])
    assert settled.moved == frozenset()
    assert settled.tried is before.tried
    assert settled.changed({}, ["b"]) is settled


def test_an_address_that_a_user_gave_is_given_to_nobody_else():
    before = Vips().changed(every({"a": 0}))
    address = before.addresses("a")[0]
    for pinned in (
        before.changed({}, pinned=[address]),
        Vips().changed(every({"a": 0}), pinned=[address]),
    ):
        assert pinned.moved == {"a"}
        assert pinned.addresses("a") != before.addresses("a")
        assert pinned.changed({}, unpinned=[address]).addresses("a") == before.addresses("a")
    assert (
        before.changed({}, pinned=["10.0.0.0/8", "10.0.0.1", "fd00::1", "240.240.255.255"]).moved
        == frozenset()
    )


HOST = st.sampled_from("abcdefghij")
STEP = st.tuples(
    st.dictionaries(HOST, st.integers(0, 3), max_size=4),
    st.lists(HOST, max_size=3),
    st.sets(st.integers(0, 6), max_size=2),
    st.sets(st.integers(0, 6), max_size=2),
)


def texts(offsets):
    return [str(ip_address(vips_module.FIRST_V4 + offset)) for offset in offsets]


@pytest.mark.usefixtures("crowded")
def test_any_history_gives_what_the_present_hosts_and_ages_say():
    @given(st.lists(STEP, max_size=8))
    def law(steps):
        hosts: dict[str, datetime] = {}
        pins: set[int] = set()
        vips = Vips()
        for come, gone, pinned, unpinned in steps:
            before = given_out(vips)
            hosts = {host: age for host, age in hosts.items() if host not in gone} | every(come)
            pins = (pins - unpinned) | pinned
            vips = vips.changed(every(come), gone, pinned=texts(pinned), unpinned=texts(unpinned))
            now = given_out(vips)
            assert now == by_age(hosts, pins)
            differ = {h for h in before | now if before.get(h, ()) != now.get(h, ())}
            assert vips.moved == differ
        emptied = vips.changed({}, hosts, unpinned=texts(pins))
        assert (emptied.ranks, emptied.tried, emptied.holders, emptied.rejected) == ({}, {}, {}, {})

    law()


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=6), st.integers(0, 5), max_size=20),
    st.randoms(),
)
def test_the_order_of_arrival_does_not_matter(hosts, rng):
    order = list(hosts)
    rng.shuffle(order)
    vips = Vips()
    for host in order:
        vips = vips.changed(every({host: hosts[host]}))
    assert given_out(vips) == given_out(Vips().changed(every(hosts)))


def a_service(**changes) -> Service:
    made = Service(
        host="db.example.com",
        namespace="shop",
        ports=(),
        addresses=(),
        resolution=Resolution.STATIC,
        external=True,
        export_to=(),
        selector=None,
        origin=Origin("networking.istio.io", "ServiceEntry", "shop", "db"),
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    ("service", "wants"),
    [
        (a_service(), True),
        (a_service(resolution=Resolution.DNS), True),
        (a_service(addresses=("10.0.0.1",)), False),
        (a_service(resolution=Resolution.NONE), False),
        (a_service(host="*.example.com"), False),
    ],
)
def test_who_wants_an_address(service, wants):
    assert wants_vip(service) == wants
