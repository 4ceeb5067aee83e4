"""A kind has many names on the command line: kubectl's."""

from __future__ import annotations

import pytest

from windward.cli.failures import UserError
from windward.cli.kinds import SHORT_NAMES, resolve


@pytest.mark.parametrize(
    "word", ["vs", "VirtualService", "virtualservices", "VIRTUALSERVICE", "virtualService"]
)
def test_all_of_these_are_one(word: str):
    assert resolve(word).kind == "VirtualService"


def test_every_short_name_means_a_kind():
    assert len({resolve(word).kind for word in SHORT_NAMES}) == len(SHORT_NAMES)


def test_a_typo_is_told_what_is_near_and_nonsense_what_there_is():
    with pytest.raises(UserError, match="did you mean gateway"):
        resolve("gatway")
    with pytest.raises(UserError, match="kinds are: DestinationRule"):
        resolve("pod")
