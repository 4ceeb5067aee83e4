"""PeerAuthentication's rules: modes, and ports only of selected workloads."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.config import judging

SELECTOR = {"matchLabels": {"app": "a"}}


def judged(spec: dict[str, Any]) -> list[str]:
    return judging.judged("PeerAuthentication", spec, "security.istio.io/v1")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"mtls": {"mode": "STRICT"}},
        {"selector": SELECTOR, "mtls": {}, "portLevelMtls": {8080: {"mode": "DISABLE"}}},
        {"selector": SELECTOR, "portLevelMtls": {"8080": {"mode": "UNSET"}}},
    ],
)
def test_good_policies(spec: dict[str, Any]) -> None:
    assert judged(spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"mtls": {"mode": "strict"}}, ["mtls.mode invalid-value"]),
        (
            {"selector": {"matchLabels": {"app": "*"}}},
            ['selector.matchLabels["app"] invalid-value'],
        ),
        ({"selector": SELECTOR, "portLevelMtls": {}}, ["portLevelMtls required"]),
        ({"portLevelMtls": {"80": {}}}, ["portLevelMtls conflict"]),
        ({"selector": {}, "portLevelMtls": {"80": {}}}, ["portLevelMtls conflict"]),
        ({"selector": SELECTOR, "portLevelMtls": {"0": {}}}, ['portLevelMtls["0"] out-of-range']),
        (
            {"selector": SELECTOR, "portLevelMtls": {"http": {}}},
            ['portLevelMtls["http"] wrong-type'],
        ),
    ],
)
def test_faults(spec: dict[str, Any], expected: list[str]) -> None:
    assert judged(spec) == expected
