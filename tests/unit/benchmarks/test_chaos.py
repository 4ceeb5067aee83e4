from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.chaos.blame import GATEWAY, Down, Kill, Part, Verdict, outages, verdict
from benchmarks.chaos.run import rows
from benchmarks.chaos.scene import LONGEST_GAP_S, SHORTEST_GAP_S, WORKLOADS, schedule
from benchmarks.requests import Ended

TWO = ("a", "b")


def failed(sent: float, ended: float) -> Ended:
    return Ended(sent, ended, "503 no")


def killed(name: str, at: float, gone: float | None = None, part: Part = Part.ENVOY) -> Kill:
    return Kill(part, name, at, at + 0.1 if gone is None else gone)


def test_a_workload_is_down_until_it_first_answers_what_was_sent_after_its_kill():
    requests = {
        "/": (
            Ended(0.9, 1.3, "200", "a"),  # sent before: a buffered answer proves nothing
            Ended(1.2, 1.4, "200", "b"),
            Ended(2.0, 2.5, "200", "a"),
            Ended(3.0, 3.5, "200", "a"),
        )
    }
    assert outages([killed("a", 1.0)], requests) == {"a": (Down(1.0, 2.5),)}


def test_any_answer_shows_that_the_gateway_is_back():
    requests = {"/": (Ended(1.2, 1.4, "200", "b"),)}
    assert outages([killed(GATEWAY, 1.0)], requests) == {GATEWAY: (Down(1.0, 1.4),)}


def test_a_workload_that_never_answers_again_stays_down_and_the_control_plane_is_no_workload():
    kills = [killed("a", 1.0), killed("pilot", 2.0, part=Part.PILOT)]
    assert outages(kills, {"/": ()}) == {"a": (Down(1.0, float("inf")),)}


@pytest.mark.parametrize(
    ("request_", "kills", "expected"),
    [
        (failed(0.9, 1.1), [killed("a", 1.0)], Verdict.IN_FLIGHT),
        (failed(0.9, 1.1), [killed(GATEWAY, 1.0)], Verdict.IN_FLIGHT),
        (failed(1.2, 1.3), [killed("a", 1.0)], Verdict.IN_FLIGHT),
        (failed(1.4, 1.5), [killed("a", 1.0)], Verdict.UNEXPLAINED),
        (failed(0.5, 0.9), [killed("a", 1.0)], Verdict.UNEXPLAINED),
        (failed(0.9, 1.1), [killed("c", 1.0)], Verdict.UNEXPLAINED),
        (failed(0.9, 1.1), [killed("pilot", 1.0, part=Part.PILOT)], Verdict.UNEXPLAINED),
        (failed(1.2, 1.3), [killed(GATEWAY, 1.0)], Verdict.GATEWAY_DOWN),
        (failed(1.9, 2.2), [killed("a", 1.0), killed("b", 1.5)], Verdict.NO_INSTANCE),
    ],
)
def test_a_failure_is_due_to_a_kill_only_on_its_path_and_in_its_time(request_, kills, expected):
    downs = outages(kills, {"/": (Ended(2.5, 3.0, "200", "a"), Ended(2.5, 3.0, "200", "b"))})
    assert verdict(request_, TWO, kills, downs) is expected


def test_one_instance_down_excuses_nothing_where_another_could_answer():
    downs = {"a": (Down(1.0, 9.0),), "b": (Down(5.0, 6.0),)}
    assert verdict(failed(2.0, 3.0), TWO, [], downs) is Verdict.UNEXPLAINED
    assert verdict(failed(4.0, 5.5), TWO, [], downs) is Verdict.NO_INSTANCE
    assert verdict(failed(6.0, 7.0), TWO, [], downs) is Verdict.UNEXPLAINED


@given(seed=st.integers(min_value=0), seconds=st.floats(min_value=0, max_value=700))
def test_a_schedule_is_its_seeds_and_keeps_to_its_time(seed, seconds):
    made = list(schedule(seed, seconds))
    assert made == list(schedule(seed, seconds))
    assert sum(strike.after_s for strike in made) <= seconds
    assert len(made) >= int(seconds / LONGEST_GAP_S) - 1
    for strike in made:
        assert SHORTEST_GAP_S <= strike.after_s <= LONGEST_GAP_S
        of_workload = strike.part in {Part.ENVOY, Part.AGENT}
        assert strike.name in ((GATEWAY, *WORKLOADS) if of_workload else {strike.part.value})


def test_ten_minutes_strike_everything():
    made = list(schedule(1, 600))
    assert {strike.name for strike in made} == {GATEWAY, *WORKLOADS, "pilot", "citadel"}
    assert any(one != other for one, other in pairwise(made))


def test_the_bars_are_no_unexplained_failure_and_everything_back():
    figures = {
        "kills": {"envoy a": 2}, "requests": 10, "failed_in_flight": 3, "failed_unexplained": 0,
        "not_back": 0, "in_sync_at_the_end": True,
    }  # fmt: skip
    assert all(row.held for row in rows(figures))
    bad = figures | {"failed_unexplained": 1, "not_back": 1, "in_sync_at_the_end": False}
    assert not any(row.held for row in rows(bad))
