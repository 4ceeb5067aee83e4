"""Who is a gateway: what a certificate proves and a setting names, and nothing that a proxy says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.pilot.credentials.accounts import is_gateway, parse_accounts
from services.pilot.settings import Settings
from tests.unit.pilot.mesh import router
from windward.identity.spiffe_id import workload_id

ENROLLED: dict[str, Any] = {
    "store": "memory:",
    "citadel_address": "127.0.0.1:1",
    "citadel_mtls_address": "127.0.0.1:2",
    "trust_bundle_file": "roots.pem",
    "token_file": "token",
    "state_dir": "state",
}
LISTED = parse_accounts(("shop/gateway", "edge/door"))
WORDS = ("shop", "edge", "gateway", "door", "shop-gateway", "Gateway")


def test_accounts_are_pairs():
    assert {("shop", "gateway"), ("edge", "door")} == LISTED


@pytest.mark.parametrize(
    "text",
    ["", "shop", "shop/", "/gateway", "shop/*", "*/*", "shop/gateway/x", "shop/..", "a b/c"],
)
def test_what_is_no_account_is_refused_by_name(text):
    with pytest.raises(ValueError, match="is not NAMESPACE/SERVICE_ACCOUNT"):
        parse_accounts((text,))


@given(st.sampled_from(WORDS), st.sampled_from(WORDS), st.sampled_from(WORDS))
def test_only_what_is_proved_counts(namespace, account, said):
    """Whatever namespace a proxy says: it has to be the proved one, and that with its account on the list."""
    proxy = replace(
        router(), namespace=said, identity=workload_id("cluster.local", namespace, account)
    )
    wanted = (namespace, account) in LISTED and said == namespace
    assert is_gateway(proxy, "cluster.local", LISTED) == wanted
    assert not is_gateway(proxy, "other.example", LISTED)
    assert not is_gateway(replace(proxy, identity=None), "cluster.local", LISTED)


@pytest.mark.parametrize("folder", ["", "/keys"])
@pytest.mark.parametrize("accounts", [(), ("shop/gateway",)])
def test_keys_without_accounts_are_no_settings_and_accounts_without_keys_neither(folder, accounts):
    made = {**ENROLLED, "gateway_secrets": folder, "gateway_accounts": accounts}
    if bool(folder) == bool(accounts):
        assert Settings(**made).accounts() == parse_accounts(accounts)
        return
    with pytest.raises(ValueError, match="--gateway-secrets and --gateway-accounts need one"):
        Settings(**made)


def test_an_account_that_is_none_names_the_flag():
    with pytest.raises(ValueError, match="--gateway-accounts: 'shop'"):
        Settings(**ENROLLED, gateway_secrets="/keys", gateway_accounts=("shop",))
