"""WorkloadEntry's rules: one address, its ports and labels."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.config.judging import judged


@pytest.mark.parametrize(
    "spec",
    [
        {"address": "10.0.0.1"},
        {"address": "fd00::1", "ports": {"http": 80}, "labels": {"app": "a"}, "weight": 3},
        {"address": "a.example.com", "serviceAccount": "a", "locality": "r/z/s"},
        {"address": "unix:///run/socket"},
        {"network": "n"},
    ],
)
def test_good_entries(spec: dict[str, Any]) -> None:
    assert judged("WorkloadEntry", spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ["address required"]),
        ({"address": "a b"}, ["address invalid-value"]),
        ({"address": "unix://run"}, ["address invalid-value"]),
        ({"address": "unix:///run/"}, ["address invalid-value"]),
        ({"address": f"{'a.' * 128}b"}, ["address too-large"]),
        ({"address": "unix:///run/socket", "ports": {"http": 80}}, ["ports conflict"]),
        ({"address": "a", "ports": {"h_": 80}}, ['ports["h_"] invalid-value']),
        ({"address": "a", "ports": {"http": 0}}, ['ports["http"] out-of-range']),
        ({"address": "a", "labels": {"a": "@"}}, ['labels["a"] invalid-value']),
        ({"address": "a", "weight": -1}, ["weight out-of-range"]),
        ({"address": "a", "serviceAccount": "a" * 254}, ["serviceAccount too-large"]),
    ],
)
def test_faults(spec: dict[str, Any], expected: list[str]) -> None:
    assert judged("WorkloadEntry", spec) == expected
