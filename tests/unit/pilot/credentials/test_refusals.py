"""What somebody claimed and may not have is said once, counted always, and nothing of it is a secret."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from services.pilot import metrics
from services.pilot.credentials import refusals
from services.pilot.credentials.refusals import Refusals
from tests.unit.pilot.mesh import router
from windward.identity.spiffe_id import workload_id

HOSTILE = replace(
    router(),
    service_account="reviews",
    identity=workload_id("cluster.local", "shop", "reviews"),
)


def counted() -> float:
    value = metrics.REGISTRY.get_sample_value("pilot_gateway_credentials_refused_total")
    assert value is not None
    return value


def test_each_claim_is_said_once_with_what_to_do_and_counted_each_time():
    made, before = Refusals(), counted()
    with capture_logs() as logs:
        for number in range(3):
            made.tell(replace(HOSTILE, id=f"router~x~{number}"), {"cert": "shop/edge"})
        made.tell(HOSTILE, {"cert": "shop/edge", "other": "shop/edge"})
        made.tell(replace(HOSTILE, identity=None), {"cert": "shop/edge"})
        made.tell(router(), {})
    assert [(item["credential"], item["identity"]) for item in logs] == [
        ("cert", str(HOSTILE.identity)),
        ("other", str(HOSTILE.identity)),
        ("cert", "none proved"),
    ]
    assert "add shop/reviews to --gateway-accounts" in logs[0]["hint"]
    assert counted() - before == 6


def test_what_was_said_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(refusals, "MOST_SAID", 2)
    made = Refusals()
    with capture_logs() as logs:
        for name in ("a", "b", "c", "a", "a"):
            made.tell(HOSTILE, {name: "shop/edge"})
    assert [item["credential"] for item in logs] == ["a", "b", "c", "a"]
