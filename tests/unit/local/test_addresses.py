"""Where the parts of a mesh listen: no two in one place, whatever runs on the machine already."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windward.local.addresses import (
    OWN_CHOICE,
    Mode,
    free_port,
    mesh_id,
    plan_loopback,
    plan_namespaces,
    spare_ports,
)
from windward.local.errors import LocalMeshError

IDS = st.integers(0, 2**24 - 1).map(lambda number: f"{number:06x}")
NAMES = st.integers(1, 240).map(lambda count: tuple(f"w{number}" for number in range(count)))


@given(IDS, NAMES)
def test_loopback_gives_everybody_two_addresses_of_its_own(identifier: str, names: tuple[str, ...]):
    plan = plan_loopback(identifier, names)
    addresses = [item for place in plan.places for item in (place.address, place.app_address)]
    assert len(set(addresses)) == 2 * len(names)
    assert all(ipaddress.ip_address(item).is_loopback for item in addresses)
    assert "127.0.0.1" not in addresses
    assert plan.place(names[-1]).name == names[-1]


@given(IDS, NAMES, st.sets(st.integers(0, 255), max_size=255))
def test_namespaces_take_a_network_that_nobody_has(
    identifier: str, names: tuple[str, ...], taken: set[int]
):
    in_use = tuple(ipaddress.IPv4Network(f"10.89.{third}.0/24") for third in taken)
    plan = plan_namespaces(identifier, names, in_use)
    assert plan.mode is Mode.NAMESPACES
    assert plan.network is not None
    assert not any(plan.network.overlaps(other) for other in in_use)
    addresses = [plan.control_address, *(place.address for place in plan.places)]
    assert len(set(addresses)) == len(names) + 1
    assert all(ipaddress.ip_address(item) in plan.network for item in addresses)
    links = [plan.bridge, *(place.link for place in plan.places)]
    assert all(link is not None and len(link) <= 15 for link in links), "the kernel's limit"


def test_no_network_left_and_too_many_workloads_are_errors():
    everything = (ipaddress.IPv4Network("10.0.0.0/8"),)
    with pytest.raises(LocalMeshError, match="no free network"):
        plan_namespaces("000000", ("a",), everything)
    with pytest.raises(LocalMeshError, match="at most 240"):
        plan_namespaces("000000", tuple(map(str, range(241))), ())


def test_a_folder_is_its_mesh_whatever_way_leads_there(tmp_path: Path):
    (tmp_path / "a").mkdir()
    assert mesh_id(tmp_path / "a") == mesh_id(tmp_path / "a" / ".." / "a")
    assert mesh_id(tmp_path / "a") != mesh_id(tmp_path)


def test_a_taken_port_is_not_given_out():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert free_port("127.0.0.1", taken) != taken
    assert free_port("127.0.0.1", taken) == taken


def test_nobody_else_comes_to_have_a_free_port_meanwhile():
    ports = [free_port("127.0.0.1") for _ in range(300)]
    assert len(set(ports)) == len(ports)
    first, last = map(int, OWN_CHOICE.read_text().split())
    assert set(ports) <= set(spare_ports(first, last))


@pytest.mark.parametrize(
    ("first", "last", "spare"),
    [
        (32_768, 60_999, range(20_000, 32_768)),
        (15_000, 60_999, range(61_000, 65_536)),
        (1024, 65_535, range(20_000, 65_536)),
        (1024, 65_000, range(20_000, 65_536)),
    ],
)
def test_spare_ports_are_those_that_the_kernel_does_not_choose_from_if_there_are_enough(
    first, last, spare
):
    assert spare_ports(first, last) == spare


@given(IDS, NAMES)
def test_a_mesh_of_both_families_gives_everybody_an_ipv6_address_and_changes_nothing_else(
    identifier: str, names: tuple[str, ...]
):
    one, both = (plan_namespaces(identifier, names, (), ipv6=ipv6) for ipv6 in (False, True))
    assert both.network6 is not None
    given = [ipaddress.IPv6Address(place.address6) for place in both.places]
    control = ipaddress.IPv6Address(both.control_address6)
    assert len({control, *given}) == len(names) + 1
    assert all(address in both.network6 and address.is_private for address in given)
    assert replace(both, network6=None, places=one.places) == one
    assert [replace(place, address6="") for place in both.places] == list(one.places)
    assert (one.control_address6, one.places[0].address6) == ("", "")
