from __future__ import annotations

import re

import pytest

from windward.expression.compiled import compile_expression
from windward.expression.vocabulary import VOCABULARY, ValueType


@pytest.mark.parametrize("name", sorted(VOCABULARY))
def test_every_attribute_can_be_written_in_an_expression(name):
    assert compile_expression(name).type is VOCABULARY[name]


def test_names_are_dotted_words():
    assert all(re.fullmatch(r"[a-z]+(\.[A-Za-z_]+)+", name) for name in VOCABULARY)


@pytest.mark.parametrize("side", ["source", "destination"])
def test_both_peers_are_described_alike(side):
    peer = {
        name.removeprefix(f"{side}."): kind
        for name, kind in VOCABULARY.items()
        if name.startswith(f"{side}.") and not name.startswith("destination.service.")
    }
    assert peer["ip"] is ValueType.IP_ADDRESS
    assert peer["port"] is ValueType.INT64
    assert peer["labels"] is ValueType.STRING_MAP
    assert {peer[name] for name in ("principal", "namespace", "workload.name", "uid")} == {
        ValueType.STRING
    }
