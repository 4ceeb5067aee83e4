"""Mixer's settings."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from windward.identity.names import TRUST_DOMAIN


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    store: Annotated[str, Meta(description="etcd://host:port[,host:port], or memory: for tests")]
    citadel_address: Annotated[str, Meta(description="Citadel for callers with a token")]
    citadel_mtls_address: Annotated[str, Meta(description="Citadel for callers with a certificate")]
    trust_bundle_file: Annotated[
        str, Meta(description="PEM of the root that Citadel must chain to")
    ]
    token_file: Annotated[str, Meta(description="join token, for the first certificate")]
    state_dir: Annotated[str, Meta(description="where certificate and key are kept (0600)")]
    trust_domain: Annotated[str, Meta(description="the mesh's trust domain")] = TRUST_DOMAIN
    grpc_address: Annotated[str, Meta(description="checks and access logs, mTLS")] = "0.0.0.0:9091"
    metrics_address: Annotated[str, Meta(description="the mesh's metrics and health, HTTP")] = (
        "127.0.0.1:15014"
    )
    log_level: Annotated[str, Meta(description="debug, info, warning or error")] = "info"
    ports_file: Annotated[str, Meta(description="write the ports in use there, as JSON")] = ""
    otlp_endpoint: Annotated[str, Meta(description="OTLP/HTTP endpoint for traces")] = ""
