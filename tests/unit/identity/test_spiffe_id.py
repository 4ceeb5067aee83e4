"""SPIFFE ids: one strict grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windward.identity.spiffe_id import LIMIT_BYTES, SpiffeId, SpiffeIdError, workload_id


def test_a_workloads_id():
    made = workload_id("cluster.local", "shop", "reviews")
    assert str(made) == "spiffe://cluster.local/ns/shop/sa/reviews"
    assert SpiffeId.parse(str(made)) == made
    assert (made.namespace, made.service_account) == ("shop", "reviews")


@pytest.mark.parametrize(
    "text", ["spiffe://td", "spiffe://td/a", "spiffe://td_1.x-2/A.b_c-d/...", "spiffe://td/..a"]
)
def test_valid(text: str):
    assert str(SpiffeId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "spiffe:", "spiffe://", "http://td/a", "SPIFFE://td", "spiffe://TD", "spiffe://td/", "spiffe://td//a",
        "spiffe://td/a/", "spiffe://td/./a", "spiffe://td/..", "spiffe://td/a b", "spiffe://td/a%20", "spiffe://td:80/a",
        "spiffe://td/a?b", "spiffe://td/a#b", "spiffe://u@td/a", "spiffe://td/é", "spiffe://td/a,b", "spiffe://td/a\0",
    ],
)  # fmt: skip
def test_invalid(text: str):
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse(text)


def test_a_length_at_and_over_the_limit():
    longest = "spiffe://td/" + "a" * (LIMIT_BYTES - len("spiffe://td/"))
    assert str(SpiffeId.parse(longest)) == longest
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse(longest + "a")


@pytest.mark.parametrize("account", ["b,evil.com", "b/../c", "", "a b"])
def test_a_name_that_is_no_segment_makes_no_id(account: str):
    with pytest.raises(SpiffeIdError):
        workload_id("td", "a", account)


@given(st.text(max_size=60))
def test_parsing_is_exact_or_refused(text: str):
    try:
        made = SpiffeId.parse(text)
    except SpiffeIdError:
        return
    assert str(made) == text
