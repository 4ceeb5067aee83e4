"""Callers of Pilot's APIs as the transport would prove them, and objects to apply."""

from __future__ import annotations

import json
from typing import Any

from windward.api.config.v1 import config_pb2
from windward.store.memory import MemoryStore

TRUST_DOMAIN = "cluster.local"
ADMINISTRATOR = "spiffe://cluster.local/ns/istio-system/sa/windward-admin"
MIXER = "spiffe://cluster.local/ns/istio-system/sa/windward-mixer"
WORKLOAD = "spiffe://cluster.local/ns/shop/sa/reviews"
NETWORKING = "networking.istio.io"


class Caller:
    """A servicer context that knows who calls, and nothing else."""

    def __init__(self, identity: str = "") -> None:
        self._identity = identity

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"peer_spiffe_id": [self._identity.encode()]} if self._identity else {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return ()


def an_object(kind: str, name: str, spec: dict[str, Any], namespace: str = "") -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": f"{NETWORKING}/v1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def a_service_entry(name: str, port: int = 80, namespace: str = "shop") -> dict[str, Any]:
    spec = {
        "hosts": [f"{name}.shop.example"],
        "ports": [{"number": port, "name": "http", "protocol": "HTTP"}],
        "resolution": "STATIC",
        "endpoints": [{"address": "10.0.0.1"}],
    }
    return an_object("ServiceEntry", name, spec, namespace)


def a_workload_group(name: str, **template: Any) -> dict[str, Any]:
    spec = {
        "metadata": {"labels": {"app": name}},
        "template": {"serviceAccount": name, "ports": {"http": 8080}, **template},
    }
    return an_object("WorkloadGroup", name, spec, "shop")


def an_apply(*objects: dict[str, Any], **fields: Any) -> config_pb2.ApplyRequest:
    inputs = [config_pb2.ObjectInput(json=json.dumps(item).encode()) for item in objects]
    return config_pb2.ApplyRequest(objects=inputs, **fields)


def a_ref(kind: str, name: str, namespace: str = "shop") -> config_pb2.ObjectRef:
    return config_pb2.ObjectRef(group=NETWORKING, kind=kind, namespace=namespace, name=name)


class Contested(MemoryStore):
    """A store in which somebody else writes just before each of our first ``times`` commits."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.commits = 0

    async def commit(self, transaction: Any) -> int:
        from windward.store.errors import Conflict

        self.commits += 1
        if self.commits <= self.times:
            raise Conflict("somebody else was faster")
        return await super().commit(transaction)
