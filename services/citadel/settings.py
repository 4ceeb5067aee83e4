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
    jwt_default_ttl: Annotated[
        Seconds, Meta(description="lifetime of JWT-SVIDs that ask for none")
    ] = Seconds(300)
    jwt_max_ttl: Annotated[
        Seconds, Meta(description="longer asked lifetimes of JWT-SVIDs are refused")
    ] = Seconds(3600)
    jwt_key_rotation: Annotated[
        Seconds, Meta(description="how long a key signs JWT-SVIDs; at least the longest lifetime")
    ] = Seconds(86400)
    jwt_key_announce: Annotated[
        Seconds, Meta(description="how long the next such key is in the bundle before it signs")
    ] = Seconds(3600)
    csr_mode: Annotated[
        Literal["override", "strict"],
        Meta(
            description="override: a request's names are ignored; strict: they must be the caller's"
        ),
    ] = "override"

    def __post_init__(self) -> None:
        if self.default_ttl > self.max_ttl:
            raise ValueError("--default-ttl must not be longer than --max-ttl")
        if not 1 <= self.jwt_default_ttl <= self.jwt_max_ttl:
            raise ValueError("--jwt-default-ttl must be between 1 s and --jwt-max-ttl")
        if self.jwt_key_rotation < max(self.jwt_max_ttl, self.jwt_key_announce * 2):
            raise ValueError(
                "--jwt-key-rotation must be at least --jwt-max-ttl and twice --jwt-key-announce"
            )
