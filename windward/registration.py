"""The record of a registered workload, as it lies in the store under ``endpoints/<namespace>/<name>``.

Pilot writes it on behalf of an agent; Pilot's registry and Mixer's attributes read it. It has no lease: beside it lies
``endpoint-leases/<namespace>/<name>`` on the agent's lease. Where that is missing, the workload is not known to live.
"""

from __future__ import annotations

import msgspec

from windward.records import read_json


class RegisteredWorkload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A workload that an agent runs beside, its WorkloadGroup's template applied."""

    namespace: str
    name: str
    address: str
    workload_group: str
    service_account: str
    labels: dict[str, str] = {}
    ports: dict[str, int] = {}
    locality: str = ""
    network: str = ""
    weight: int = 1
    unhealthy: bool = False
    schema: int = 1


def encode(workload: RegisteredWorkload) -> bytes:
    return msgspec.json.encode(workload)


def decode(value: bytes) -> RegisteredWorkload:
    """Raises msgspec.DecodeError for bytes that are no record."""
    return read_json(value, RegisteredWorkload)
