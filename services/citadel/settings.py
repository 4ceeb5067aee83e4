"""Citadel's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from windward.identity.names import TRUST_DOMAIN
from windward.process import ProcessSettings
from windward.settings import Seconds


class Settings(ProcessSettings, frozen=True, kw_only=True):
    store: Annotated[str, Meta(description="etcd://host:port[,host:port], or memory: for tests")]
    kek_file: Annotated[
        str, Meta(description="key-encryption key, 32 random bytes; made (0600) if absent")
    ]
    bootstrap_dir: Annotated[
        str,
        Meta(
            description="where root-cert.pem and, 0600, the administrator's admin.token are written"
        ),
    ] = ""
    trust_domain: Annotated[str, Meta(description="the mesh's trust domain")] = TRUST_DOMAIN
    tls_address: Annotated[str, Meta(description="for callers with a token, server-side TLS")] = (
        "0.0.0.0:8060"
    )
    mtls_address: Annotated[str, Meta(description="for callers with a certificate, mTLS")] = (
        "0.0.0.0:8061"
    )
    metrics_address: Annotated[str, Meta(description="metrics and health, HTTP")] = (
        "127.0.0.1:15014"
    )
    default_ttl: Annotated[
        Seconds, Meta(description="lifetime of certificates that ask for none")
    ] = Seconds(86400)
    max_ttl: Annotated[Seconds, Meta(description="longer asked lifetimes are refused")] = Seconds(
        90 * 86400
    )
    root_ttl: Annotated[Seconds, Meta(description="lifetime of a new self-signed root")] = Seconds(
        3650 * 86400
    )
    csr_mode: Annotated[
        Literal["override", "strict"],
        Meta(
            description="override: a request's names are ignored; strict: they must be the caller's"
        ),
    ] = "override"

    def __post_init__(self) -> None:
        if self.default_ttl > self.max_ttl:
            raise ValueError("--default-ttl must not be longer than --max-ttl")
