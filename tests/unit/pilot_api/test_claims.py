"""What was checked a moment ago need not be checked again, as long as nothing is different."""

from __future__ import annotations

import pytest

from services.pilot.api import claims as module
from services.pilot.api.claims import Claims
from windward.api.registry.v1 import registry_pb2
from windward.identity.spiffe_id import SpiffeId, workload_id

TTL_S = 15.0
ANSWER = registry_pb2.RegisterResponse(lease_id=7, revision=3)


def caller(account: str = "reviews") -> SpiffeId:
    return workload_id("cluster.local", "shop", account)


def request(name: str = "a", lease: int = 7, **fields: object) -> registry_pb2.RegisterRequest:
    workload = registry_pb2.Workload(namespace="shop", name=name, **fields)  # type: ignore[arg-type]
    return registry_pb2.RegisterRequest(workload=workload, lease_id=lease)


@pytest.fixture
def claims() -> Claims:
    made = Claims(TTL_S)
    made.checked(caller(), request(labels={"a": "1", "b": "2"}), ANSWER, 100.0)
    return made


def test_the_same_words_have_the_same_answer_and_a_check_holds_a_ttl(claims):
    found = claims.last(caller(), request(labels={"b": "2", "a": "1"}))
    assert (found.answer, found.until_s) == (ANSWER, 100.0 + TTL_S)
    claims.checked(caller(), request(), ANSWER, 100.0, holds_s=0.0)
    assert claims.last(caller(), request()).until_s == 100.0


def test_anything_different_is_not_known(claims):
    labels = {"a": "1", "b": "2"}
    assert claims.last(caller("ratings"), request(labels=labels)) is None
    assert claims.last(caller(), request(lease=8, labels=labels)) is None
    assert claims.last(caller(), request(lease=0, labels=labels)) is None
    assert claims.last(caller(), request(labels={"a": "1"})) is None
    assert claims.last(caller(), request("b", labels=labels)) is None


def test_what_is_forgotten_is_not_known(claims):
    claims.forget("shop", "a")
    claims.forget("shop", "absent")
    assert claims.last(caller(), request(labels={"a": "1", "b": "2"})) is None


def test_old_ones_make_room(claims, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(10):
        claims.checked(caller(), request(f"w{number}"), ANSWER, 101.0)
    known = [number for number in range(10) if claims.last(caller(), request(f"w{number}"))]
    assert known == [7, 8, 9]
    claims.checked(caller(), request("late"), ANSWER, 101.0 + TTL_S + module.KEPT_S)
    assert claims.last(caller(), request("late"))
    assert len(claims._claims) == 1
