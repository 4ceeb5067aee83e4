"""What proxies claim as gateways and may not have: said and counted."""

from __future__ import annotations

from collections.abc import Mapping

from services.pilot import metrics
from services.pilot.model.proxy import Proxy
from windward.telemetry.logging import get_logger

log = get_logger()
MOST_SAID = 1000


class Refusals:
    """Says once who claimed which credential and may not have it, however often he comes."""

    def __init__(self) -> None:
        self._said: set[tuple[str, str, str]] = set()

    def tell(self, proxy: Proxy, refused: Mapping[str, str]) -> None:
        """``refused``: name of a credential -> a Gateway that names it."""
        who = str(proxy.identity or "")
        for name, gateway in sorted(refused.items()):
            metrics.CREDENTIALS_REFUSED.inc()
            if (key := (who, proxy.namespace, name)) in self._said:
                continue
            if len(self._said) >= MOST_SAID:
                self._said.clear()
            self._said.add(key)
            log.warning(
                "credential.refused",
                credential=name,
                gateway=gateway,
                proxy=proxy.id[:200],
                identity=who or "none proved",
                hint=f"if this is a gateway, add {proxy.namespace}/{proxy.service_account} to --gateway-accounts; "
                "if not, a workload claims to be one",
            )
