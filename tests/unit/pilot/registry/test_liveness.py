from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.pilot.registry.liveness import DOUBT_S, MASS_LEAST, LivenessTable, Served
from tests.unit.pilot.mesh import workload
from windward.registration import RegisteredWorkload

TTL_S = 10.0


def named(number: int, **changes: object) -> RegisteredWorkload:
    return workload(f"w{number:03}-v1", f"127.7.1.{number}", **changes)


def table(count: int) -> LivenessTable:
    made = LivenessTable(TTL_S)
    made.apply([named(number) for number in range(count)], [], 0.0)
    return made


def keys(*numbers: int) -> list[tuple[str, str]]:
    return [("shop", f"w{number:03}-v1") for number in numbers]


def health(made: LivenessTable) -> dict[str, bool]:
    return {item.name: healthy for item, healthy in made.workloads()}


def test_a_vanished_record_is_unhealthy_after_a_moment_and_forgotten_three_ttls_later():
    made = table(2)
    assert not made.apply([], keys(0), 100.0)
    assert made.next_tick_s() == 100.0 + DOUBT_S
    assert made.tick(100.0 + DOUBT_S)
    assert health(made) == {"w000-v1": False, "w001-v1": True}
    forgotten = 100.0 + DOUBT_S + 3 * TTL_S
    assert made.next_tick_s() == forgotten
    assert not made.tick(forgotten - 0.1)
    assert made.tick(forgotten)
    assert health(made) == {"w001-v1": True}
    assert made.next_tick_s() is None


def test_a_deregistered_record_goes_at_once():
    made = table(2)
    assert made.apply([named(0, deregistered=True)], [], 100.0)
    assert health(made) == {"w001-v1": True}
    assert not made.apply([], keys(0), 100.1)


def test_a_record_put_again_is_healthy_again():
    made = table(1)
    made.apply([], keys(0), 100.0)
    made.tick(101.0)
    assert health(made) == {"w000-v1": False}
    assert made.apply([named(0)], [], 102.0)
    assert health(made) == {"w000-v1": True}
    assert made.next_tick_s() is None


def test_a_workload_that_says_so_is_unhealthy():
    made = table(1)
    assert made.apply([named(0, unhealthy=True)], [], 1.0)
    assert health(made) == {"w000-v1": False}


def test_mass_expiry_is_suspected_and_believed_after_one_ttl():
    made = table(20)
    gone = keys(*range(MASS_LEAST))
    assert not made.apply([], gone, 100.0)
    assert all(health(made).values())
    assert made.next_tick_s() == 100.0 + TTL_S
    made.apply([named(0)], [], 103.0)
    assert not made.tick(100.0 + TTL_S - 0.1)
    assert made.tick(100.0 + TTL_S)
    assert sum(not healthy for healthy in health(made).values()) == MASS_LEAST - 1
    assert health(made)["w000-v1"]


def test_many_that_vanish_one_by_one_are_suspected_as_well():
    made = table(100)
    for number in range(50):
        made.apply([], keys(number), 100.0 + number * 0.001)
    assert all(health(made).values())
    assert not made.tick(101.0)
    assert made.tick(100.0 + TTL_S + 1)


def test_less_than_a_tenth_is_believed():
    made = table(100)
    made.apply([], keys(*range(MASS_LEAST)), 100.0)
    assert made.tick(100.0 + DOUBT_S)
    assert sum(not healthy for healthy in health(made).values()) == MASS_LEAST


def test_few_are_believed_whatever_their_share():
    made = table(MASS_LEAST - 1)
    made.apply([], keys(*range(MASS_LEAST - 1)), 100.0)
    assert made.tick(100.0 + DOUBT_S)
    assert not any(health(made).values())


def test_what_vanishes_within_a_ttl_of_an_outage_has_a_whole_ttl_to_come_back():
    made = table(3)
    made.outage(100.0)
    made.apply([], keys(0), 100.0 + TTL_S - 1)
    assert made.next_tick_s() == 100.0 + 2 * TTL_S - 1
    made.apply([], keys(1), 100.0 + TTL_S)
    assert made.tick(100.0 + TTL_S + DOUBT_S)
    assert health(made) == {"w000-v1": True, "w001-v1": False, "w002-v1": True}


def test_the_same_record_again_changes_nothing():
    made = table(2)
    assert not made.apply([named(0), named(1)], [], 5.0)
    assert not made.apply([], keys(17), 5.0)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "vanish", "deregister", "outage", "wait"]),
        st.sets(st.integers(0, 11), max_size=12),
        st.floats(0.0, 2 * TTL_S),
    ),
    max_size=60,
)


def served(made: LivenessTable) -> Served:
    return {(item.namespace, item.name): (item, healthy) for item, healthy in made.workloads()}


@given(STEPS)
def test_reports_exactly_what_is_served_otherwise(steps):
    made, now_s = LivenessTable(TTL_S), 0.0
    for what, numbers, later_s in steps:
        now_s += later_s
        before = served(made)
        match what:
            case "put":
                changed = made.apply([named(number) for number in numbers], [], now_s)
            case "vanish":
                changed = made.apply([], keys(*sorted(numbers)), now_s)
            case "deregister":
                gone = [named(number, deregistered=True) for number in numbers]
                changed = made.apply(gone, [], now_s)
            case "outage":
                made.outage(now_s)
                changed = {}
            case _:
                changed = made.tick(now_s)
        now = served(made)
        assert changed == {
            key: now.get(key) for key in {*before, *now} if before.get(key) != now.get(key)
        }


@given(STEPS)
def test_whatever_happened_everything_that_stays_away_is_forgotten_in_the_end(steps):
    made, now_s = LivenessTable(TTL_S), 0.0
    for what, numbers, later_s in steps:
        now_s += later_s
        if what == "put":
            made.apply([named(number) for number in numbers], [], now_s)
        else:
            made.apply([], keys(*sorted(numbers)), now_s)
    made.apply([], keys(*range(12)), now_s)
    for _ in range(100):
        due_s = made.next_tick_s()
        if due_s is None:
            break
        now_s = max(now_s, due_s) + 0.001
        made.tick(now_s)
    assert made.workloads() == []
