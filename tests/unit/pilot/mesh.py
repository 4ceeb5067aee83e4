"""Short ways to a mesh for Pilot's tests: objects as users write them, proxies, and what is generated for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as hcm_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2

from services.pilot.envoy.generate import generate as generate_all
from services.pilot.envoy.options import Options
from services.pilot.envoy.scope import Resources
from services.pilot.model.proxy import Interception, Proxy, ProxyType
from services.pilot.registry.liveness import Served
from services.pilot.snapshot import Delta, MeshSnapshot
from services.pilot.state import MeshState
from windward.config.decode import decode_object
from windward.config.object import ConfigObject, ObjectKey
from windward.identity.spiffe_id import workload_id
from windward.registration import RegisteredWorkload
from windward.xds import resource as xds

GROUPS = {
    "PeerAuthentication": "security.istio.io/v1",
    "handler": "config.istio.io/v1alpha2",
    "instance": "config.istio.io/v1alpha2",
    "rule": "config.istio.io/v1alpha2",
}
Made = Mapping[str, Mapping[str, xds.Resource]]
OPTIONS = Options(
    trust_domain="cluster.local",
    allow_any=True,
    mixer_addresses=(),
    gateway_accounts=frozenset({("shop", "gateway")}),
)
WITH_MIXER = replace(OPTIONS, mixer_addresses=("127.0.0.1:9091",))
BORN = datetime(2030, 1, 1, tzinfo=UTC)
REVIEWS = "reviews.shop.svc.cluster.local"


def make(
    kind: str,
    name: str,
    spec: Mapping[str, Any],
    *,
    namespace: str = "shop",
    born: int = 0,
    annotations: Mapping[str, str] | None = None,
) -> ConfigObject[Any]:
    """A valid object; ``born`` in seconds, so that a smaller one is older."""
    raw = {
        "apiVersion": GROUPS.get(kind, "networking.istio.io/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": dict(annotations or {}),
        },
        "spec": dict(spec),
    }
    made, findings = decode_object(raw)
    assert made is not None, findings
    return replace(made, created_at=BORN + timedelta(seconds=born))


def port(number: int = 9080, protocol: str = "HTTP", name: str = "http") -> dict[str, Any]:
    return {"number": number, "name": name, "protocol": protocol}


def service_entry(name: str = "reviews", **changes: Any) -> ConfigObject[Any]:
    """``reviews``, of the workloads with app=reviews, unless told otherwise."""
    namespace, born = changes.pop("namespace", "shop"), changes.pop("born", 0)
    spec = {
        "hosts": [f"{name}.{namespace}.svc.cluster.local"],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [port()],
        "workloadSelector": {"labels": {"app": name}},
        **changes,
    }
    spec = {key: value for key, value in spec.items() if value is not None}
    return make("ServiceEntry", name, spec, namespace=namespace, born=born)


def workload(
    name: str = "reviews-v1", address: str = "127.7.0.2", **changes: Any
) -> RegisteredWorkload:
    app, _, version = name.partition("-")
    fields = {
        "namespace": "shop",
        "name": name,
        "address": address,
        "workload_group": app,
        "service_account": app,
        "labels": {"app": app, "version": version},
        **changes,
    }
    return RegisteredWorkload(**fields)


def sidecar(
    address: str = "127.7.0.9",
    *,
    namespace: str = "shop",
    account: str = "caller",
    labels: Mapping[str, str] | None = None,
    interception: Interception = Interception.REDIRECT,
    kind: ProxyType = ProxyType.SIDECAR,
    app_address: str = "127.0.0.1",
) -> Proxy:
    return Proxy(
        id=f"{kind.value}~{address}~{account}.{namespace}~{namespace}.svc.cluster.local",
        type=kind,
        namespace=namespace,
        name=account,
        service_account=account,
        address=address,
        labels=tuple(sorted((labels or {}).items())),
        interception=interception,
        app_address=app_address,
        identity=workload_id("cluster.local", namespace, account),
    )


def direct(address: str = "127.7.0.9", **changes: Any) -> Proxy:
    """A sidecar in loopback mode."""
    return sidecar(address, interception=Interception.NONE, **changes)


def router(address: str = "127.7.0.100", **changes: Any) -> Proxy:
    return sidecar(
        address, kind=ProxyType.ROUTER, account="gateway", labels={"istio": "ingress"}, **changes
    )


def change(
    state: MeshState,
    *objects: ConfigObject[Any],
    workloads: Iterable[RegisteredWorkload] = (),
    removed: Iterable[ObjectKey] = (),
    gone: Iterable[tuple[str, str]] = (),
    revision: int = 1,
) -> Delta:
    """Objects and workloads put, objects and workloads removed."""
    changed: dict[ObjectKey, ConfigObject[Any] | None] = {item.key: item for item in objects}
    changed.update(dict.fromkeys(removed))
    served: Served = {(item.namespace, item.name): (item, not item.unhealthy) for item in workloads}
    served.update(dict.fromkeys(gone))
    return state.apply(changed, served, revision)


def snap(
    *objects: ConfigObject[Any],
    workloads: Iterable[RegisteredWorkload] = (),
    revision: int = 1,
) -> MeshSnapshot:
    state = MeshState()
    change(state, *objects, workloads=workloads, revision=revision)
    return state.snapshot


def generate(snapshot: MeshSnapshot, proxy: Proxy, options: Options = OPTIONS) -> Resources:
    return generate_all(snapshot, proxy, options)


def cluster(made: Resources, name: str) -> cluster_pb2.Cluster:
    return cluster_pb2.Cluster.FromString(made[xds.CLUSTER][name].body)


def assignment(made: Made, name: str) -> endpoint_pb2.ClusterLoadAssignment:
    return endpoint_pb2.ClusterLoadAssignment.FromString(made[xds.ENDPOINT][name].body)


def listener(made: Resources, name: str) -> listener_pb2.Listener:
    return listener_pb2.Listener.FromString(made[xds.LISTENER][name].body)


def routes(made: Resources, name: str) -> route_pb2.RouteConfiguration:
    return route_pb2.RouteConfiguration.FromString(made[xds.ROUTE][name].body)


def extension(made: Resources, name: str) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig.FromString(made[xds.EXTENSION][name].body)


def host(made: Resources, config: str, name: str) -> route_components_pb2.VirtualHost:
    found = {item.name: item for item in routes(made, config).virtual_hosts}
    return found[name]


def chain(
    made: listener_pb2.Listener, transport: str, number: int | None = None
) -> listener_components_pb2.FilterChain:
    """The chain for a transport protocol and destination port."""
    return next(
        item
        for item in made.filter_chains
        if item.filter_chain_match.transport_protocol == transport
        and (item.filter_chain_match.destination_port.value or None) == number
    )


def manager(made: listener_components_pb2.FilterChain) -> hcm_pb2.HttpConnectionManager:
    unpacked = hcm_pb2.HttpConnectionManager()
    assert made.filters[0].typed_config.Unpack(unpacked)
    return unpacked


def tcp_proxy(made: listener_components_pb2.FilterChain) -> tcp_proxy_pb2.TcpProxy:
    unpacked = tcp_proxy_pb2.TcpProxy()
    assert made.filters[0].typed_config.Unpack(unpacked)
    return unpacked
