"""Who Envoy says it is: id, cluster, locality and metadata, from settings and the environment. Pure.

    ISTIO_META_NAME=text        WINDWARD_META_NAME=text         metadata NAME: "text"
    ISTIO_METAJSON_ANY={...}    WINDWARD_METAJSON_ANY={...}     every key of the object
    ISTIO_METAJSON_LABELS       ISTIO_METAJSON_ANNOTATIONS      LABELS, ANNOTATIONS as well

Windward's form wins over Istio's, what the agent itself knows over both. Source: istio pkg/bootstrap/config.go
(GetNodeMetaData).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.agent.envoy.proxy_config import ProxyConfig

TEXT_PREFIXES = ("ISTIO_META_", "WINDWARD_META_")
JSON_PREFIXES = ("ISTIO_METAJSON_", "WINDWARD_METAJSON_")
LOCALITY_LABELS = ("istio-locality", "windward.io/locality")
TOPOLOGY_LABELS = (
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
)
NO_NAME = "istio-proxy"


class BadEnvironment(ValueError):
    """One line: which variable, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Node:
    id: str
    cluster: str
    locality: Mapping[str, str]
    """Of region, zone and sub_zone those that are known."""
    metadata: Mapping[str, Any]
    instance_ips: tuple[str, ...]

    @property
    def annotations(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.metadata.get("ANNOTATIONS", {})
        return found

    @property
    def only_ipv6(self) -> bool:
        return bool(self.instance_ips) and all(
            ipaddress.ip_address(address).version == 6 for address in self.instance_ips
        )


def environment_metadata(environ: Mapping[str, str]) -> dict[str, Any]:
    """What the environment adds to the metadata. Raises BadEnvironment for what is not a JSON object."""
    found: dict[str, Any] = {}
    for prefix in TEXT_PREFIXES:
        for name in sorted(environ):
            if name.startswith(prefix) and len(name) > len(prefix):
                found[name.removeprefix(prefix)] = environ[name]
    for prefix in JSON_PREFIXES:
        for name in sorted(environ):
            if name.startswith(prefix) and len(name) > len(prefix):
                found |= _json_object(name, environ[name], name.removeprefix(prefix))
    return found


def _json_object(name: str, text: str, kind: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise BadEnvironment(f"{name}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadEnvironment(f"{name}: must be a JSON object")
    if kind not in {"LABELS", "ANNOTATIONS"}:
        return value
    for key, item in value.items():
        if not isinstance(item, str):
            raise BadEnvironment(f"{name}: {key}: must be a text")
    return {**value, kind: value}


def parse_downward(text: str) -> dict[str, str]:
    """Labels or annotations as Kubernetes writes them into a file: ``name="value"`` a line, quoted as in Go."""
    found = {}
    for line in text.splitlines():
        name, equals, quoted = line.partition("=")
        if equals:
            try:
                found[name] = str(json.loads(quoted))
            except ValueError as error:
                raise BadEnvironment(f"{name}: not a quoted text: {quoted[:80]}") from error
    return found


def build_node(
    *,
    node_id: str,
    known: Mapping[str, Any],
    environ: Mapping[str, str],
    proxy: ProxyConfig,
    proxy_raw: Mapping[str, Any],
    instance_ips: Iterable[str],
    locality: str = "",
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Node:
    """``known`` is the agent's own metadata; ``labels`` and ``annotations`` go over those of the environment."""
    unprefixed = {
        name.removeprefix(prefix): value
        for prefix in TEXT_PREFIXES
        for name, value in proxy.proxy_metadata.items()
        if name.startswith(prefix)
    }
    metadata = {**unprefixed, **environment_metadata(environ), **known}
    own_labels = {**metadata.get("LABELS", {}), **(labels or {})}
    static_labels = dict(own_labels)
    where = locality or locality_of(own_labels)
    for name in LOCALITY_LABELS:
        if name in own_labels:
            own_labels[name] = static_labels[name] = where
    if own_labels:
        metadata |= {"LABELS": own_labels, "STATIC_LABELS": static_labels}
    own_annotations = {**metadata.get("ANNOTATIONS", {}), **(annotations or {})}
    if own_annotations:
        metadata["ANNOTATIONS"] = own_annotations
    addresses = tuple(dict.fromkeys(instance_ips))
    metadata["INSTANCE_IPS"] = ",".join(addresses)
    if proxy_raw:
        metadata["PROXY_CONFIG"] = dict(proxy_raw)
    return Node(
        node_id, service_cluster(proxy, metadata), parse_locality(where), metadata, addresses
    )


def locality_of(labels: Mapping[str, str]) -> str:
    """The locality that labels tell: one of our own, or Kubernetes' region, zone and subzone."""
    for name in LOCALITY_LABELS:
        if labels.get(name):
            # A label's value may hold no slash, so dots stand for them.
            return labels[name].replace(".", "/") if "/" not in labels[name] else labels[name]
    parts = [labels.get(name, "") for name in TOPOLOGY_LABELS]
    return "/".join(parts).rstrip("/")


def parse_locality(text: str) -> dict[str, str]:
    """``region/zone/sub_zone``, each but the first may be left out."""
    parts = text.split("/", 2) if text else []
    names = ("region", "zone", "sub_zone")
    return {name: part for name, part in zip(names, parts, strict=False) if part}


def service_cluster(proxy: ProxyConfig, metadata: Mapping[str, Any]) -> str:
    """The given one; else the application or workload with its namespace."""
    if proxy.service_cluster not in {"", NO_NAME}:
        return proxy.service_cluster
    labels = metadata.get("LABELS", {})
    namespace = metadata.get("NAMESPACE", "")
    name = (
        labels.get("app")
        or labels.get("app.kubernetes.io/name")
        or metadata.get("WORKLOAD_NAME")
        or NO_NAME
    )
    return f"{name}.{namespace}" if namespace else str(name)
