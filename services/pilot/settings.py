"""Pilot's settings."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from windward.identity.names import TRUST_DOMAIN
from windward.settings import Seconds


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
    plaintext_address: Annotated[
        str, Meta(description="xDS without TLS, loopback only; empty: not served")
    ] = ""
    mtls_address: Annotated[str, Meta(description="xDS and APIs, mTLS")] = "0.0.0.0:15012"
    tls_address: Annotated[
        str, Meta(description="xDS and APIs for callers with a token; empty: not served")
    ] = ""
    metrics_address: Annotated[str, Meta(description="metrics and health, HTTP")] = (
        "127.0.0.1:15014"
    )
    mixer_address: Annotated[
        tuple[str, ...], Meta(description="Mixer's host:port, several by comma; empty: none")
    ] = ()
    endpoint_ttl: Annotated[Seconds, Meta(description="lease of a registered workload")] = Seconds(
        15
    )
    outbound_traffic_policy: Annotated[
        Literal["ALLOW_ANY", "REGISTRY_ONLY"],
        Meta(description="what happens to hosts that no service has"),
    ] = "ALLOW_ANY"
    endpoint_delay: Annotated[
        Seconds, Meta(description="how long a new endpoint waits for others")
    ] = Seconds(0.005)
    config_quiet: Annotated[
        Seconds, Meta(description="quiet time before configuration is pushed")
    ] = Seconds(0.010)
    config_longest: Annotated[
        Seconds, Meta(description="longest time that configuration waits")
    ] = Seconds(0.100)
    log_level: Annotated[str, Meta(description="debug, info, warning or error")] = "info"
    ports_file: Annotated[str, Meta(description="write the ports in use there, as JSON")] = ""
    otlp_endpoint: Annotated[str, Meta(description="OTLP/HTTP endpoint for traces")] = ""

    def __post_init__(self) -> None:
        if self.endpoint_ttl < 1:
            raise ValueError("--endpoint-ttl must be at least 1s")
