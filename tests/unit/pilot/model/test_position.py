"""Positions compare part by part; what is no position is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pilot.model.position import Position
from windward.xds.resource import ResourceSet
from windward.xds.stream import SotwStream

REVISION = st.integers(0, 2**63 - 1)
POSITION = st.builds(Position, REVISION, REVISION)


@given(POSITION, REVISION)
def test_what_is_written_is_read(position, count):
    assert Position.parse(str(position)) == position
    current = ResourceSet(count, 1, (), position=str(position))
    assert Position.parse(SotwStream(current).version_told) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "7.",
        ".7",
        "7.7.7.7",
        "7.7.",
        "-1.7",
        "7.x",
        "1e3.4",
        "\u0667.\u0667",
        "1" * 20 + ".1",
        " 7.7",
    ],
)
def test_what_is_no_position(text):
    with pytest.raises(ValueError, match="no position"):
        Position.parse(text)


def test_one_part_ahead_does_not_make_up_for_the_other():
    assert Position(7, 9).includes(Position(7, 9))
    assert Position(8, 9).includes(Position(7, 9))
    assert not Position(8, 9).includes(Position(7, 10))
    assert not Position(6, 99).includes(Position(7, 9))


@given(POSITION, REVISION)
def test_what_is_common_with_a_revision_is_no_more_than_either(position, revision):
    common = position.common(revision)
    assert position.includes(common)
    assert max(common) <= revision
