from hypothesis import given
from hypothesis import strategies as st

from benchmarks.xds.churn import slope


@given(st.floats(-5, 5), st.floats(-100, 100), st.integers(2, 50))
def test_a_line_has_its_own_slope(rise, start, steps):
    assert abs(slope([start + rise * step for step in range(steps)]) - rise) < 1e-6


def test_one_value_has_none():
    assert slope([7.0]) == 0.0
