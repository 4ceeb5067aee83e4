"""Mixer's kinds: what admission says of parameters, references and expressions."""

from __future__ import annotations

from typing import Any

import pytest

from windward.config.decode import decode_object

ACTIONS = [{"handler": "guard", "instances": ["what"]}]


def refusals(kind: str, spec: dict[str, Any]) -> list[tuple[str, str]]:
    raw = {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": kind,
        "metadata": {"name": "it", "namespace": "harbour"},
        "spec": spec,
    }
    _, findings = decode_object(raw)
    return [(finding.path, finding.message) for finding in findings]


@pytest.mark.parametrize("match", ["", "  ", "connection.mtls", 'source.name | "?" == "quay"'])
def test_a_rules_match_is_a_condition(match: str):
    assert refusals("rule", {"match": match, "actions": ACTIONS}) == []


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ("request.quay == 1", "unknown attribute request.quay"),
        ("request.path ==", "unexpected end at position 16"),
        ("request.path", "must be BOOL, is STRING"),
        ("(" * 100 + "true" + ")" * 100, "nested deeper than 60 levels"),
    ],
)
def test_a_match_that_cannot_be_compiled_is_refused_with_its_field(match: str, words: str):
    assert refusals("rule", {"match": match, "actions": ACTIONS}) == [("spec.match", words)]


def test_every_error_of_a_rule_is_told_at_once():
    found = refusals("rule", {"match": "$", "actions": [{"handler": "", "instances": [""]}]})
    assert [path for path, _ in found] == [
        "spec.match",
        "spec.actions[0].handler",
        "spec.actions[0].instances[0]",
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "unexpected end at position 1"),
        ("request.size", "must be STRING or IP_ADDRESS, is INT64"),
        ("source.quay", "unknown attribute source.quay"),
    ],
)
def test_an_entry_is_a_text_or_an_address(value: str, words: str):
    spec = {"compiledTemplate": "listentry", "params": {"value": value}}
    assert refusals("instance", spec) == [("spec.params.value", words)]


@pytest.mark.parametrize("value", ["source.ip", 'request.headers["version"] | "none"'])
def test_entries_that_can_be_looked_up(value: str):
    spec = {"compiledTemplate": "listentry", "params": {"value": value}}
    assert refusals("instance", spec) == []
