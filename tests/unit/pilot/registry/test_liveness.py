"""Leases that lapse: one by one they are believed, many at once or after an outage they are not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.pilot.registry.liveness import (
    DOUBT_S,
    GRACE_LEAST_S,
    MASS_LEAST,
    PATIENCE_GRACES,
    LivenessTable,
    Served,
    WorkloadBatch,
    WorkloadKey,
)
from tests.unit.pilot.mesh import workload
from windward.registration import RegisteredWorkload

TTL_S = 10.0


def named(number: int, **changes: object) -> RegisteredWorkload:
    return workload(f"w{number:03}-v1", f"127.7.1.{number}", **changes)


def keys(*numbers: int) -> frozenset[WorkloadKey]:
    return frozenset(("shop", f"w{number:03}-v1") for number in numbers)


def put(*items: RegisteredWorkload, leased: bool = True) -> WorkloadBatch:
    made = {(item.namespace, item.name): item for item in items}
    return WorkloadBatch(put=made, leased=frozenset(made) if leased else frozenset())


def lapsed(*numbers: int) -> WorkloadBatch:
    return WorkloadBatch(lapsed=keys(*numbers))


def claimed(*numbers: int) -> WorkloadBatch:
    return WorkloadBatch(leased=keys(*numbers))


def removed(*numbers: int) -> WorkloadBatch:
    """As one transaction does it: record and lease together."""
    return WorkloadBatch(removed=keys(*numbers), lapsed=keys(*numbers))


def table(count: int) -> LivenessTable:
    made = LivenessTable(TTL_S)
    made.apply(put(*map(named, range(count))), 0.0)
    return made


def health(made: LivenessTable) -> dict[str, bool]:
    return {item.name: healthy for item, healthy in made.workloads()}


def test_what_lapsed_is_unhealthy_after_a_moment_and_forgotten_three_ttls_later():
    made = table(2)
    assert not made.apply(lapsed(0), 100.0)
    assert made.next_tick_s() == 100.0 + DOUBT_S
    assert made.tick(100.0 + DOUBT_S).keys() == keys(0)
    assert health(made) == {"w000-v1": False, "w001-v1": True}
    forgotten = 100.0 + DOUBT_S + 3 * TTL_S
    assert made.next_tick_s() == forgotten
    assert not made.tick(forgotten - 0.1)
    assert not made.forgotten
    assert made.tick(forgotten).keys() == keys(0)
    assert health(made) == {"w001-v1": True}
    assert made.forgotten == keys(0)
    assert made.next_tick_s() is None
    made.apply(removed(0), forgotten + 1)
    assert not made.forgotten


def test_what_was_forgotten_and_comes_back_is_not_to_be_removed():
    made = table(1)
    made.apply(lapsed(0), 100.0)
    made.tick(101.0)
    made.tick(200.0)
    assert made.forgotten == keys(0)
    assert made.apply(put(named(0)), 201.0).keys() == keys(0)
    assert not made.forgotten
    assert health(made) == {"w000-v1": True}


def test_a_removed_record_goes_at_once():
    made = table(2)
    assert made.apply(removed(0), 100.0).keys() == keys(0)
    assert health(made) == {"w001-v1": True}
    assert made.next_tick_s() is None
    assert not made.apply(lapsed(0), 100.1)


def test_a_lease_claimed_again_is_healthy_again():
    made = table(1)
    made.apply(lapsed(0), 100.0)
    made.tick(101.0)
    assert health(made) == {"w000-v1": False}
    assert made.apply(claimed(0), 102.0).keys() == keys(0)
    assert health(made) == {"w000-v1": True}
    assert made.next_tick_s() is None


def test_what_is_claimed_again_while_doubted_was_never_away():
    made = table(1)
    assert not made.apply(lapsed(0), 100.0)
    assert not made.apply(claimed(0), 100.2)
    assert made.next_tick_s() is None


def test_a_workload_that_says_so_is_unhealthy():
    made = table(1)
    assert made.apply(put(named(0, unhealthy=True)), 1.0).keys() == keys(0)
    assert health(made) == {"w000-v1": False}


def test_a_record_found_without_a_lease_has_time_to_be_claimed():
    """It lapsed while this Pilot was not there."""
    made = LivenessTable(TTL_S)
    made.outage(0.0)
    made.apply(put(named(0), named(1), leased=False), 0.0)
    assert health(made) == {"w000-v1": True, "w001-v1": True}
    assert not made.apply(claimed(0), TTL_S / 2)
    assert made.tick(2 * TTL_S).keys() == keys(1)
    assert health(made) == {"w000-v1": True, "w001-v1": False}


def test_mass_expiry_is_suspected_and_believed_after_one_ttl():
    made = table(20)
    assert not made.apply(lapsed(*range(MASS_LEAST)), 100.0)
    assert all(health(made).values())
    assert made.next_tick_s() == 100.0 + TTL_S
    assert not made.tick(100.0 + TTL_S - 0.1)
    assert made.tick(100.0 + TTL_S).keys() == keys(*range(MASS_LEAST))


def test_suspicion_lasts_while_others_are_coming_back():
    made = table(20)
    made.apply(lapsed(*range(10)), 100.0)
    assert not made.apply(claimed(0), 108.0)
    assert not made.tick(110.0)
    assert made.next_tick_s() == 108.0 + TTL_S
    assert not made.apply(claimed(1), 117.0)
    assert not made.tick(118.0)
    assert made.tick(127.0).keys() == keys(*range(2, 10))


def test_what_lapses_once_more_while_others_are_coming_back_is_suspected():
    made = table(100)
    made.apply(lapsed(*range(50)), 100.0)
    made.apply(claimed(*range(40)), 108.0)
    made.apply(lapsed(0), 112.0)
    assert not made.tick(117.9)
    assert made.served(*keys(0)) == (named(0), True)
    assert made.tick(122.0).keys() >= keys(0)


def test_patience_has_an_end_however_slowly_they_come_back():
    made = table(200)
    made.apply(lapsed(*range(100)), 100.0)
    now_s = 100.0
    for number in range(99):
        now_s += TTL_S / 2
        made.apply(claimed(number), now_s)
        if made.tick(now_s):
            break
    assert now_s == 100.0 + PATIENCE_GRACES * TTL_S


def test_many_that_lapse_one_by_one_are_suspected_as_well():
    made = table(100)
    for number in range(50):
        made.apply(lapsed(number), 100.0 + number * 0.001)
    assert all(health(made).values())
    assert not made.tick(101.0)
    assert made.tick(100.0 + TTL_S + 1).keys() == keys(*range(50))


def test_the_first_of_many_is_taken_back_when_the_others_follow():
    made = table(20)
    made.apply(lapsed(0), 100.0)
    assert made.tick(100.0 + DOUBT_S).keys() == keys(0)
    assert made.apply(lapsed(1, 2, 3, 4), 101.0).keys() == keys(0)
    assert all(health(made).values())


def test_less_than_a_tenth_is_believed():
    made = table(100)
    made.apply(lapsed(*range(MASS_LEAST)), 100.0)
    assert made.tick(100.0 + DOUBT_S).keys() == keys(*range(MASS_LEAST))


def test_few_are_believed_whatever_their_share():
    made = table(MASS_LEAST - 1)
    made.apply(lapsed(*range(MASS_LEAST - 1)), 100.0)
    assert made.tick(100.0 + DOUBT_S)
    assert not any(health(made).values())


def test_what_lapses_within_a_ttl_of_an_outage_has_a_whole_ttl_to_come_back():
    made = table(3)
    made.outage(100.0)
    made.apply(lapsed(0), 100.0 + TTL_S - 1)
    assert made.next_tick_s() == 100.0 + 2 * TTL_S - 1
    made.apply(lapsed(1), 100.0 + TTL_S)
    assert made.tick(100.0 + TTL_S + DOUBT_S).keys() == keys(1)
    assert health(made) == {"w000-v1": True, "w001-v1": False, "w002-v1": True}


def test_after_an_outage_agents_have_the_time_that_coming_back_takes_however_short_the_ttl():
    made = LivenessTable(1.0)
    made.outage(100.0)
    made.apply(put(*map(named, range(40)), leased=False), 100.0)
    assert not made.tick(100.0 + GRACE_LEAST_S - 0.1)
    assert made.tick(100.0 + GRACE_LEAST_S).keys() == keys(*range(40))


def test_an_outage_that_is_noticed_late_covers_what_is_doubted_already():
    made = table(3)
    made.apply(lapsed(0), 100.0)
    made.outage(100.1)
    assert made.next_tick_s() == 100.1 + TTL_S


def test_the_same_again_changes_nothing():
    made = table(2)
    assert not made.apply(put(named(0), named(1)), 5.0)
    assert not made.apply(lapsed(17), 5.0)
    assert not made.apply(WorkloadBatch(), 5.0)


def test_what_takes_something_away_is_urgent():
    assert removed(0).urgent
    assert lapsed(0).urgent
    assert put(named(0), named(1, unhealthy=True)).urgent
    assert not put(named(0)).urgent
    assert not claimed(0).urgent


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "found", "claim", "lapse", "remove", "outage", "wait"]),
        st.sets(st.integers(0, 11), max_size=12),
        st.floats(0.0, 2 * TTL_S),
    ),
    max_size=60,
)


def step(made: LivenessTable, what: str, numbers: set[int], now_s: float) -> Served:
    match what:
        case "put" | "found":
            return made.apply(put(*map(named, sorted(numbers)), leased=what == "put"), now_s)
        case "claim":
            return made.apply(claimed(*numbers), now_s)
        case "lapse":
            return made.apply(lapsed(*numbers), now_s)
        case "remove":
            return made.apply(removed(*numbers), now_s)
        case "outage":
            made.outage(now_s)
            return {}
    return made.tick(now_s)


@given(STEPS)
def test_changes_are_told_by_key_exactly(steps):
    made, now_s = LivenessTable(TTL_S), 0.0
    every = keys(*range(12))
    for what, numbers, later_s in steps:
        now_s += later_s
        before = {key: made.served(key) for key in every}
        changed = step(made, what, numbers, now_s)
        assert changed == {
            key: made.served(key) for key in every if made.served(key) != before[key]
        }
        assert made.workloads() == [
            served for key in sorted(every) if (served := made.served(key)) is not None
        ]


@given(STEPS)
def test_what_holds_its_lease_is_served_whatever_becomes_of_others(steps):
    made, now_s = LivenessTable(TTL_S), 0.0
    recorded: set[int] = set()
    leased: set[int] = set()
    for what, numbers, later_s in steps:
        now_s += later_s
        step(made, what, numbers, now_s)
        recorded = recorded | numbers if what in {"put", "found"} else recorded
        leased = leased | numbers if what in {"put", "claim"} else leased
        recorded = recorded - numbers if what == "remove" else recorded
        leased = leased - numbers if what in {"remove", "lapse"} else leased
        # A record that was forgotten is put again by whoever claims it.
        held = {key for key in keys(*(recorded & leased)) if key not in made.forgotten}
        assert all(served[1] for served in map(made.served, held) if served is not None)
        assert what != "put" or all(made.served(key) for key in keys(*numbers))


@given(STEPS)
def test_whatever_happened_everything_that_stays_away_is_forgotten_in_the_end(steps):
    made, now_s = LivenessTable(TTL_S), 0.0
    for what, numbers, later_s in steps:
        now_s += later_s
        step(made, what, numbers, now_s)
    made.apply(lapsed(*range(12)), now_s)
    for _ in range(100):
        due_s = made.next_tick_s()
        if due_s is None:
            break
        now_s = max(now_s, due_s) + 0.001
        made.tick(now_s)
    assert made.workloads() == []
