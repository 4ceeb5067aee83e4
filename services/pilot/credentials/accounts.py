"""Which service accounts are gateways, as --gateway-accounts says. Pure.

Any workload can open a stream that says `router` and carries the labels that a Gateway selects. Nothing of that is proved; what
a certificate proves is namespace and service account, so these decide who is sent certificates with their keys.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.pilot.model.proxy import Proxy
from windward.identity.spiffe_id import SpiffeIdError, workload_id

Account = tuple[str, str]
"""(namespace, service account)."""


def parse_accounts(listed: Iterable[str]) -> frozenset[Account]:
    """``namespace/account`` each. Raises ValueError."""
    found = set()
    for text in listed:
        namespace, _, account = text.partition("/")
        try:
            workload_id("example.org", namespace, account)
        except SpiffeIdError as error:
            raise ValueError(f"{text!r} is not NAMESPACE/SERVICE_ACCOUNT: {error}") from error
        found.add((namespace, account))
    return frozenset(found)


def is_gateway(proxy: Proxy, trust_domain: str, accounts: frozenset[Account]) -> bool:
    """Whether the proxy's certificate proves one of these accounts, and the namespace that it says."""
    identity = proxy.identity
    return (
        identity is not None
        and identity.trust_domain == trust_domain
        and identity.workload is not None
        and identity.workload[0] == proxy.namespace
        and identity.workload in accounts
    )
