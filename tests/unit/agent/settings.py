"""The agent's settings for a test: a sidecar of the Bookshop, anything of it replaced."""

from __future__ import annotations

from typing import Any

from services.agent.settings import Settings


def settings(**over: Any) -> Settings:
    base: dict[str, Any] = {
        "citadel_address": "127.0.0.1:8060",
        "citadel_mtls_address": "127.0.0.1:8061",
        "pilot_address": ("127.0.0.1:15012",),
        "trust_bundle_file": "root-cert.pem",
        "token_file": "token",
        "state_dir": "state",
        "namespace": "shop",
        "service_account": "reviews",
        "workload_name": "reviews-v1-1",
        "address": "10.0.0.7",
    }
    return Settings(**base | over)
