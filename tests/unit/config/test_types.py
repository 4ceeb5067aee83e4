"""Durations, JSON names, and the base of every spec."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windward.config.types import Duration, Spec, json_name, parse_duration


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hosts", "hosts"),
        ("export_to", "exportTo"),
        ("from_", "from"),
        ("http1_max_pending_requests", "http1MaxPendingRequests"),
        ("consecutive_5xx_errors", "consecutive5xxErrors"),
        ("h2_upgrade_policy", "h2UpgradePolicy"),
    ],
)
def test_json_names_are_camel_case(name: str, expected: str) -> None:
    assert json_name(name) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("10ms", 0.01),
        ("250us", 0.00025),
        ("3ns", 3e-9),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1h0m0.5s", 3600.5),
        ("-2s", -2.0),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, seconds: float) -> None:
    made = parse_duration(text)
    assert isinstance(made, Duration)
    assert made == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "-", "5", "1.5", "s", "1 s", "1s ", "1d", "1e3s", "--1s", "1s2", "1..5s", "1S", "315576000001s", "1h-1m"],
)  # fmt: skip
def test_what_is_no_duration_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_whole_milliseconds_survive(milliseconds: int) -> None:
    assert round(parse_duration(f"{milliseconds}ms") * 1000) == milliseconds


@given(st.text(alphabet="0123456789.hmsuµn-", max_size=20))
def test_any_short_text_is_a_finite_number_or_a_value_error(text: str) -> None:
    try:
        made = parse_duration(text)
    except ValueError:
        return
    assert abs(made) <= 315_576_000_000.0


class _Sample(Spec, frozen=True):
    max_age: int = 0
    from_: str = ""


def test_a_spec_has_json_names_is_frozen_and_takes_no_other_field() -> None:
    made = msgspec.convert({"maxAge": 3, "from": "here"}, _Sample)
    assert made == _Sample(max_age=3, from_="here")
    with pytest.raises(AttributeError):
        made.max_age = 4  # type: ignore[misc]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"max_age": 3}, _Sample)


def test_a_duration_of_any_length_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="characters"):
        parse_duration("1s" * 100_000)
