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


def test_the_same_words_have_the_same_answer_for_a_ttl(claims):
    same = request(labels={"b": "2", "a": "1"})
    assert claims.known(caller(), same, 100.0 + TTL_S - 0.1) == ANSWER
    assert claims.known(caller(), same, 100.0 + TTL_S) is None


def test_anything_different_is_not_known(claims):
    labels = {"a": "1", "b": "2"}
    assert claims.known(caller("ratings"), request(labels=labels), 101.0) is None
    assert claims.known(caller(), request(lease=8, labels=labels), 101.0) is None
    assert claims.known(caller(), request(lease=0, labels=labels), 101.0) is None
    assert claims.known(caller(), request(labels={"a": "1"}), 101.0) is None
    assert claims.known(caller(), request("b", labels=labels), 101.0) is None


def test_what_is_forgotten_is_not_known(claims):
    claims.forget("shop", "a")
    claims.forget("shop", "absent")
    assert claims.known(caller(), request(labels={"a": "1", "b": "2"}), 101.0) is None


def test_old_ones_make_room(claims, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(10):
        claims.checked(caller(), request(f"w{number}"), ANSWER, 101.0)
    known = [number for number in range(10) if claims.known(caller(), request(f"w{number}"), 102.0)]
    assert known == [7, 8, 9]
    claims.checked(caller(), request("late"), ANSWER, 200.0)
    assert claims.known(caller(), request("late"), 200.0)
    assert len(claims._claims) == 1
