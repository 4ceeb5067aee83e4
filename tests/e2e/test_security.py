"""mTLS between real Envoys: STRICT refuses plaintext, PERMISSIVE takes both, the server learns who called."""

from __future__ import annotations

import pytest

from tests.e2e.shop import Shop
from windward.local.ready import http_get

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120), pytest.mark.root]

PEERS = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: bookshop}}
spec:
  mtls: {{mode: {mode}}}
"""


async def plaintext(shop: Shop, workload: str, path: str) -> int:
    """A plaintext request from outside the mesh, straight at a workload; 0 when it is refused."""
    address = shop.mesh.plan.place(workload).address
    try:
        status, _ = await http_get(address, 9080, path, timeout_s=5)
    except OSError:
        return 0
    return status


async def test_strict_refuses_plaintext_and_permissive_takes_both(shop: Shop):
    async with shop:
        assert await plaintext(shop, "catalog-v1", "/books/1") == 0
        assert (await shop.get("/1")).json["catalog_status"] == 200
        await shop.apply(PEERS.format(mode="PERMISSIVE"))
        assert await plaintext(shop, "catalog-v1", "/books/1") == 200
        page = (await shop.get("/1")).json
        assert page["catalog_status"] == 200
        assert "URI=spiffe://cluster.local/ns/bookshop/sa/storefront" in page["book"]["client_cert"]


async def test_the_server_sees_the_callers_spiffe_id(shop: Shop):
    async with shop:
        page = (await shop.get("/1", {"end-user": "tester"})).json
    assert "URI=spiffe://cluster.local/ns/bookshop/sa/storefront" in page["reviews"]["client_cert"]
    assert "URI=spiffe://cluster.local/ns/bookshop/sa/gateway" in page["client_cert"]


async def test_a_caller_cannot_claim_another_identity_by_header(shop: Shop):
    async with shop:
        lie = "By=spiffe://cluster.local/ns/bookshop/sa/x;URI=spiffe://cluster.local/ns/bookshop/sa/admin"
        page = (await shop.get("/1", {"x-forwarded-client-cert": lie})).json
    assert "sa/admin" not in page["client_cert"]
