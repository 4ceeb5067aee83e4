"""Each law in a few histories; ``python -m benchmarks laws`` tries thousands."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.book import LAWS, STEPS

SEEDS = st.lists(st.integers(0, 2**32), min_size=1, max_size=1)


@pytest.mark.parametrize("name", sorted(LAWS.keys() - {"replicas"}))
@settings(max_examples=3, deadline=None)
@given(SEEDS)
def test_a_law_holds(name, seeds):
    LAWS[name](seeds, STEPS)


def test_replicas_serve_identical_bytes():
    LAWS["replicas"]([1, 2], STEPS)
