"""Leases: one that expires marks its workload at once, many at once are not believed."""

from __future__ import annotations

from services.pilot.registry.liveness import FORGOTTEN_AFTER_TTLS, MASS_LEAST, LivenessTable
from windward.registration import RegisteredWorkload

TTL_S = 10.0


def workload(
    name: str, *, deregistered: bool = False, unhealthy: bool = False
) -> RegisteredWorkload:
    return RegisteredWorkload(
        namespace="shop",
        name=name,
        address="10.0.0.1",
        workload_group="g",
        service_account="a",
        deregistered=deregistered,
        unhealthy=unhealthy,
    )


def health(table: LivenessTable) -> dict[str, bool]:
    return {item.name: healthy for item, healthy in table.workloads()}


def full(count: int) -> LivenessTable:
    table = LivenessTable(TTL_S)
    table.apply([workload(f"w{number:02}") for number in range(count)], [], 0.0)
    return table


def test_an_expired_lease_marks_the_workload_unhealthy_at_once_and_forgets_it_later():
    table = full(20)
    assert table.apply([], [("shop", "w03")], 100.0)
    assert health(table)["w03"] is False
    assert sum(health(table).values()) == 19
    assert not table.tick(100.0 + TTL_S * FORGOTTEN_AFTER_TTLS - 0.1)
    assert table.tick(100.0 + TTL_S * FORGOTTEN_AFTER_TTLS)
    assert "w03" not in health(table)


def test_a_workload_that_deregisters_is_gone_at_once():
    table = full(3)
    assert table.apply([workload("w01", deregistered=True)], [("shop", "w01")], 1.0)
    assert set(health(table)) == {"w00", "w02"}


def test_mass_expiry_is_suspected_until_agents_had_a_ttl_to_come_back():
    table = full(20)
    gone = [("shop", f"w{number:02}") for number in range(MASS_LEAST)]
    assert not table.apply([], gone, 100.0)
    assert all(health(table).values())
    table.apply([workload("w00")], [], 104.0)
    assert not table.tick(100.0 + TTL_S - 0.1)
    assert table.tick(100.0 + TTL_S)
    assert [name for name, healthy in health(table).items() if not healthy] == [
        "w01",
        "w02",
        "w03",
        "w04",
    ]


def test_expiry_right_after_an_outage_is_suspected_however_few_vanish():
    table = full(20)
    table.outage(100.0)
    assert not table.apply([], [("shop", "w03")], 105.0)
    assert all(health(table).values())
    table.apply([workload("w03")], [], 109.0)
    assert not table.tick(200.0)
    assert all(health(table).values())


def test_a_few_of_few_are_believed():
    table = full(4)
    table.apply([], [("shop", "w00"), ("shop", "w01")], 100.0)
    assert sum(health(table).values()) == 2


def test_the_next_moment_is_known_only_while_something_is_pending():
    table = full(20)
    assert table.next_tick_s() is None
    table.apply([], [("shop", "w03")], 100.0)
    assert table.next_tick_s() == 100.0 + TTL_S * FORGOTTEN_AFTER_TTLS


def test_a_workload_that_says_it_is_unhealthy_is_served_as_such():
    table = LivenessTable(TTL_S)
    table.apply([workload("w", unhealthy=True)], [], 0.0)
    assert health(table) == {"w": False}
    table.apply([workload("w")], [], 1.0)
    assert health(table) == {"w": True}
