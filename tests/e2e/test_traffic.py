"""Weights, header matches and faults, through real Envoys."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import yaml

from tests.e2e.shop import Shop
from windward.local.errors import LocalMeshError

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

REVIEWS = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookshop}
spec:
  hosts: [reviews]
  http:
"""


async def test_weights_split_within_four_standard_deviations_and_a_header_decides(shop: Shop):
    async with shop:
        answers = await shop.get_many(2000, "/1", lanes=16)
        tester = await shop.get_many(200, "/1", {"end-user": "tester"})
    assert Counter(answer.status for answer in answers) == {200: 2000}
    versions = Counter(answer.json["reviews"]["version"] for answer in answers)
    assert versions["v2"] == 0
    assert abs(versions["v3"] - 200) <= 4 * math.sqrt(2000 * 0.1 * 0.9), versions
    assert Counter(answer.json["reviews"]["version"] for answer in tester) == {"v2": 200}


async def test_an_abort_fault_hits_exactly_the_matching_requests(shop: Shop):
    await shop.apply(
        REVIEWS
        + """
  - match: [{headers: {end-user: {exact: unlucky}}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: v1}}]
  - route: [{destination: {host: reviews, subset: v1}}]
"""
    )
    async with shop:
        unlucky = await shop.get_many(40, "/1", {"end-user": "unlucky"})
        others = await shop.get_many(40, "/1")
    assert Counter(answer.json["reviews_status"] for answer in unlucky) == {418: 40}
    assert Counter(answer.json["reviews_status"] for answer in others) == {200: 40}


async def test_a_delay_fault_takes_at_least_its_time(shop: Shop):
    await shop.apply(
        REVIEWS
        + """
  - match: [{headers: {end-user: {exact: patient}}}]
    fault: {delay: {fixedDelay: 700ms, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: v1}}]
  - route: [{destination: {host: reviews, subset: v1}}]
"""
    )
    async with shop:
        patient = await shop.get_many(10, "/1", {"end-user": "patient"})
    assert all(answer.json["reviews_status"] == 200 for answer in patient)
    assert min(answer.elapsed_s for answer in patient) >= 0.7


async def test_a_timeout_ends_a_slow_call(shop: Shop):
    await shop.apply(
        REVIEWS
        + """
  - match: [{headers: {end-user: {exact: hasty}}}]
    timeout: 200ms
    retries: {attempts: 0}
    route: [{destination: {host: reviews, subset: v2}}]
  - route: [{destination: {host: reviews, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: bookshop}
spec:
  hosts: [ratings]
  http:
  - fault: {delay: {fixedDelay: 2s, percentage: {value: 100}}}
    route: [{destination: {host: ratings}}]
"""
    )
    async with shop:
        hasty = await shop.get("/1", {"end-user": "hasty"})
    assert hasty.json["reviews_status"] == 504


async def test_a_change_is_in_force_at_every_proxy_after_apply_twenty_times_of_twenty(shop: Shop):
    async with shop:
        for number in range(20):
            await shop.apply(
                REVIEWS
                + f"""
  - headers: {{response: {{set: {{x-number: "{number}"}}}}}}
    directResponse: {{status: {230 + number}}}
"""
            )
            answer = await shop.get("/1")
            assert answer.json["reviews_status"] == 230 + number


async def test_hundreds_of_objects_are_applied_whole_or_not_at_all(shop: Shop):
    entries: list[dict[str, Any]] = [
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "ServiceEntry",
            "metadata": {"name": f"extra-{number}", "namespace": "bookshop"},
            "spec": {
                "hosts": [f"extra-{number}.example.com"],
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
                "resolution": "STATIC",
                "endpoints": [{"address": "10.0.0.1"}],
            },
        }
        for number in range(300)
    ]

    async def names() -> set[str]:
        stored = await shop.mesh.administrator.list()
        return {item.ref.name for item in stored if item.ref.name.startswith("extra-")}

    bad = {**entries[0], "metadata": {"name": "extra-bad"}, "spec": {"hosts": []}}
    with pytest.raises(LocalMeshError, match=r"spec\.hosts"):
        await shop.mesh.administrator.apply_text(yaml.safe_dump_all([*entries, bad]))
    assert await names() == set()
    await shop.apply(yaml.safe_dump_all(entries))
    assert await names() == {entry["metadata"]["name"] for entry in entries}
    assert "outbound|80||extra-299.example.com" in await shop.admin("storefront-v1", "/clusters")
