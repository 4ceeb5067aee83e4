"""WorkloadGroup's rules: a template, and a probe of exactly one way."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.config.judging import judged

TEMPLATE = {"ports": {"http": 80}, "serviceAccount": "a"}


def probed(**probe: Any) -> list[str]:
    found = judged("WorkloadGroup", {"template": TEMPLATE, "probe": probe})
    return [item.removeprefix("probe") for item in found]


def test_a_group_has_a_template() -> None:
    assert judged("WorkloadGroup", {"template": TEMPLATE, "metadata": {"labels": {"a": "b"}}}) == []
    assert judged("WorkloadGroup", {}) == ["template required"]
    bad = {"template": {"address": "a b"}, "metadata": {"labels": {"a": "@"}}}
    expected = ['metadata.labels["a"] invalid-value', "template.address invalid-value"]
    assert judged("WorkloadGroup", bad) == expected


@pytest.mark.parametrize(
    "way",
    [
        {"httpGet": {"port": 80, "path": "/ready", "scheme": "HTTPS"}},
        {"tcpSocket": {"port": 80}},
        {"exec": {"command": ["true"]}},
        {"grpc": {"port": 80}},
    ],
)
def test_good_probes(way: dict[str, Any]) -> None:
    assert probed(**way, periodSeconds=1) == []


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({}, [" required"]),
        ({"tcpSocket": {"port": 80}, "exec": {"command": ["true"]}}, [" conflict"]),
        ({"tcpSocket": {}}, [".tcpSocket.port out-of-range"]),
        ({"grpc": {"port": 65536}}, [".grpc.port out-of-range"]),
        ({"exec": {}}, [".exec.command required"]),
        ({"httpGet": {"port": 80, "scheme": "ftp"}}, [".httpGet.scheme invalid-value"]),
        ({"httpGet": {"port": 80, "path": "ready"}}, [".httpGet.path invalid-value"]),
        ({"httpGet": {"port": 80, "httpHeaders": [{}]}}, [".httpGet.httpHeaders[0].name invalid-value"]),
        ({"httpGet": {"port": 80, "httpHeaders": [{"name": "*"}]}}, [".httpGet.httpHeaders[0].name invalid-value"]),
        ({"tcpSocket": {"port": 80}, "initialDelaySeconds": -1}, [".initialDelaySeconds out-of-range"]),
        ({"tcpSocket": {"port": 80}, "failureThreshold": -1}, [".failureThreshold out-of-range"]),
    ],
)  # fmt: skip
def test_faults_of_probes(probe: dict[str, Any], expected: list[str]) -> None:
    assert probed(**probe) == expected
