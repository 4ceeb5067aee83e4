"""Policy and telemetry: a rule denies one caller of one path; every request is counted once."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.shop import Shop, until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

GATEWAY_TO_CATALOG = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: storefront, namespace: bookshop}
spec:
  hosts: ["*"]
  gateways: [front-door]
  http:
  - match: [{uri: {prefix: /books/}}]
    route: [{destination: {host: catalog, port: {number: 9080}}}]
  - route: [{destination: {host: storefront, port: {number: 9080}}}]
"""

RULE = """
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {{name: guard, namespace: bookshop}}
spec:
  compiledAdapter: denier
  params: {{status: {{code: 7, message: ask the harbour master}}}}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {{name: any, namespace: bookshop}}
spec: {{compiledTemplate: checknothing}}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata:
  name: guard
  namespace: bookshop
  annotations: {{windward.io/fail-policy: {policy}}}
spec:
  match: source.principal == "{principal}" && request.path == "/books/2"
  actions: [{{handler: guard, instances: [any]}}]
"""
GATEWAY = "cluster.local/ns/bookshop/sa/gateway"
STOREFRONT = "cluster.local/ns/bookshop/sa/storefront"


async def test_a_rule_denies_one_caller_of_one_path_with_its_message(shop: Shop):
    await shop.apply(GATEWAY_TO_CATALOG)
    await shop.apply(RULE.format(policy="closed", principal=GATEWAY))
    async with shop:

        async def denied() -> bool:
            return (await shop.get("/books/2")).status == 403

        await until(denied, "the rule to be in force")
        answers = await shop.get_many(100, "/books/2")
        assert Counter(answer.status for answer in answers) == {403: 100}
        assert all(b"ask the harbour master" in answer.body for answer in answers)
        others = await shop.get_many(100, "/books/1")
        assert Counter(answer.status for answer in others) == {200: 100}
        assert (await shop.get("/2")).json["catalog_status"] == 200


async def test_with_mixer_dead_open_passes_and_closed_refuses(shop: Shop):
    await shop.apply(GATEWAY_TO_CATALOG)
    mixer = shop.mesh.parts["mixer"].child
    assert mixer is not None
    async with shop:
        for policy, expected in (("open", 200), ("closed", 403)):
            await shop.apply(RULE.format(policy=policy, principal=GATEWAY))

            async def denied() -> bool:
                return (await shop.get("/books/2")).status == 403

            await until(denied, "the rule to be in force")
            mixer.kill(keep_down=True)

            async def down(expected: int = expected) -> bool:
                return (await shop.get("/books/1")).status == expected

            await until(down, f"{policy} rules to do as said without Mixer")
            answers = await shop.get_many(40, "/books/2")
            assert Counter(answer.status for answer in answers) == {expected: 40}
            mixer.revive()

            async def back() -> bool:
                passes = (await shop.get("/books/1")).status == 200
                return passes and (await shop.get("/books/2")).status == 403

            await until(back, "Mixer to be back")


async def test_requests_total_counts_exactly_the_requests(shop: Shop):
    labels = {
        "reporter": "destination",
        "source_workload": "storefront-v1",
        "destination_workload": "catalog-v1",
        "destination_version": "v1",
        "destination_service": "catalog.bookshop.svc.cluster.local",
    }

    async def counted(**more: str) -> float:
        return await shop.metric("mixer", "istio_requests_total", **labels, **more)

    before = (-1.0, -1.0)

    async def settled() -> bool:
        nonlocal before
        last, before = (
            before,
            (await counted(response_code="200"), await counted(response_code="403")),
        )
        return before == last

    await until(settled, "earlier requests to be counted")
    async with shop:
        await shop.get_many(137, "/1")

        refused = 0

        async def denied() -> bool:
            nonlocal refused
            refused += 1
            return bool((await shop.get("/3")).json["catalog_status"] == 403)

        await until(denied, "book 3 not to be for sale")
        assert refused == 1, "the rule was in force before this test"

    async def complete() -> bool:
        return (
            await counted(response_code="200") >= before[0] + 137
            and await counted(response_code="403") >= before[1] + 1
        )

    await until(complete, "every request to be counted")
    assert await counted(response_code="200") == before[0] + 137
    assert await counted(response_code="403") == before[1] + 1
