"""Envoy's statistics, as Prometheus gets them: of the mesh's clusters those that somebody asks for, by label."""

from __future__ import annotations

import json

import pytest
from aiohttp import ClientError

from tests.e2e.flags import with_flags
from tests.e2e.shop import Shop, until
from windward.local.parts import STATUS_PORT
from windward.local.ready import http_get

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

TO_CATALOG = 'envoy_cluster_upstream_rq_total{cluster_name="outbound|9080||catalog.'
TO_REVIEWS = 'envoy_cluster_upstream_rq_total{cluster_name="outbound|9080|v1|reviews.'
ALWAYS = (
    'envoy_cluster_upstream_rq_total{cluster_name="inbound|9080||"}',
    'envoy_cluster_upstream_rq_total{cluster_name="xds-grpc"}',
    'envoy_http_downstream_rq_total{http_conn_manager_prefix="inbound_0.0.0.0_9080"}',
    "envoy_listener_manager_lds_update_success{}",
    "envoy_server_live{}",
)
CATALOG_ALONE = r"cluster\.outbound\|9080\|\|catalog\..*\.upstream_rq_total"
MATCHER = json.dumps({"proxyStatsMatcher": {"inclusionRegexps": [CATALOG_ALONE]}})
PREFIX = "sidecar.istio.io/statsInclusionPrefixes=cluster.outbound"


async def scraped(shop: Shop, name: str) -> str:
    """A sidecar's merged metrics, as Prometheus gets them."""
    address = shop.mesh.plan.place(name).address
    status, body = await http_get(address, STATUS_PORT, "/stats/prometheus", timeout_s=5)
    assert status == 200
    return body.decode()


async def answered(shop: Shop) -> bool:
    try:
        return (await shop.get("/1")).status == 200
    except (ClientError, OSError, TimeoutError):
        return False


@pytest.mark.parametrize(
    ("flags", "catalog", "reviews"),
    [
        ((), False, False),
        (("--annotations", PREFIX), True, True),
        (("--proxy-config", MATCHER), True, False),
    ],
)
async def test_of_the_meshs_clusters_what_is_asked_for(shop: Shop, flags, catalog, reviews):
    async with shop, with_flags(shop, "storefront-v1", *flags):

        async def called() -> bool:
            """The application has asked both services through this Envoy."""
            return await answered(shop) and await shop.attempts("storefront-v1", "catalog-v1") > 0

        await until(called, "requests through the new sidecar")
        told = await scraped(shop, "storefront-v1")
        assert (TO_CATALOG in told, TO_REVIEWS in told) == (catalog, reviews)
        # What is kept by itself is there whatever is asked for.
        assert all(series in told for series in ALWAYS)
        names = {line.split("{")[0] for line in told.splitlines() if not line.startswith("#")}
        assert sorted(name for name in names if "9080" in name) == []
