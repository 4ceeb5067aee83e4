"""Mixer's settings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from windward.client.enrolment import EnrolledSettings


class Settings(EnrolledSettings, frozen=True, kw_only=True):
    store: Annotated[str, Meta(description="etcd://host:port[,host:port], or memory: for tests")]
    grpc_address: Annotated[str, Meta(description="checks and access logs, mTLS")] = "0.0.0.0:9091"
    metrics_address: Annotated[str, Meta(description="the mesh's metrics and health, HTTP")] = (
        "127.0.0.1:15014"
    )
