from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.pilot.blame.patience import BACK_PER_S, MOST, MOST_KNOWN, Patience


def test_whoever_is_wrong_too_often_is_asked_less_and_regains_it_with_time():
    patience = Patience()
    for _ in range(int(MOST)):
        assert patience.has_any("a", 0.0)
        patience.lose("a", 0.0)
    assert not patience.has_any("a", 0.0)
    assert patience.has_any("b", 0.0)
    assert not patience.has_any("a", 0.9 / BACK_PER_S)
    assert patience.has_any("a", 1.0 / BACK_PER_S)


@given(st.lists(st.tuples(st.floats(0, 60), st.sampled_from("abc")), max_size=300))
def test_questions_are_bounded_by_time_however_they_come(events):
    patience, now, asked = Patience(), 0.0, 0
    for pause, who in events:
        now += pause
        if patience.has_any(who, now):
            patience.lose(who, now)
            asked += 1
    assert asked <= 3 * (MOST + now * BACK_PER_S + 1)


def test_what_is_remembered_is_bounded():
    patience = Patience()
    for number in range(MOST_KNOWN + 50):
        patience.lose(str(number), 0.0)
    assert len(patience._lost) == MOST_KNOWN
