"""What the Workload API's figures are made of: renewals that came, that came late, that never came, and others'."""

from __future__ import annotations

from typing import Any

from benchmarks.workload_api import FIRST_UID, _delivered, rows
from windward.local.parts import identity

ONE, TWO = identity("w0", "shop"), identity("w1", "shop")


def told(spiffe_id: str, *times: float) -> list[dict[str, Any]]:
    return [{"spiffe_id": spiffe_id, "time": time} for time in times]


def test_each_renewal_is_looked_for_in_its_own_stream_and_soon():
    streams = {FIRST_UID: told(ONE, 0.0, 10.02, 20.04, 40.0), FIRST_UID + 1: told(TWO, 0.0, 15.01)}
    renewals = [(ONE, 10.0), (ONE, 20.0), (TWO, 15.0), (TWO, 99.0)]
    found = _delivered(streams, renewals, 100.0)
    assert (found["told_p50_ms"], found["missing"], found["others"]) == (20.0, 0, 0)
    assert _delivered(streams, [*renewals, (ONE, 35.0), (TWO, 20.0)], 100.0)["missing"] == 2


def test_a_certificate_of_somebody_elses_is_counted_and_no_bar_is_held_then():
    renewals = [(ONE, 10.0), (ONE, 19.9), (ONE, 29.99)]
    found = _delivered({FIRST_UID: told(TWO, 0.0, 10.5, 20.0, 30.0)}, renewals, 99.0)
    assert found["others"] == 4
    made = {
        **dict.fromkeys(
            ("fetch_p50_ms", "fetch_p99_ms", "fetch_cpu_ms", "jwt_p99_ms", "connect_p50_ms"), 1.0
        ),
        **dict.fromkeys(("renewal_agent_cpu_ms", "renewal_citadel_cpu_ms"), 1.0),
        **found,
    }
    assert [row.name for row in rows(made) if not row.held] == [
        "100 workloads: renewed -> its stream has it, p99, ms",
        "certificates of anybody else's that came",
    ]
