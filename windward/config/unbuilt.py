"""Fields that no builder reads yet: set, they are refused (``not supported yet``) instead of being ignored.

The one list of them. A path is written as in findings, with ``[]`` for any element and ``.*`` for any key of a map;
a field that is empty, false or absent is not set. The list shrinks to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_POLICY: Final = (
    "loadBalancer.consistentHash", "loadBalancer.localityLbSetting", "loadBalancer.zoneAwareLbSetting",
    "loadBalancer.warmupDurationSecs", "loadBalancer.warmup",
    "connectionPool.tcp.tcpKeepalive", "connectionPool.tcp.maxConnectionDuration", "connectionPool.tcp.idleTimeout",
    "connectionPool.http.idleTimeout", "connectionPool.http.h2UpgradePolicy", "connectionPool.http.useClientProtocol",
    "connectionPool.http.maxConcurrentStreams", "connectionPool.http.http2KeepAlive",
    "outlierDetection.consecutiveErrors", "outlierDetection.splitExternalLocalOriginErrors",
    "outlierDetection.consecutiveLocalOriginFailures", "outlierDetection.minHealthPercent",
    "outlierDetection.outlierDetectionHttpErrorCodes",
    "tls.clientCertificate", "tls.privateKey", "tls.caCertificates", "tls.credentialName", "tls.subjectAltNames",
    "tls.sni", "tls.insecureSkipVerify", "tls.caCrl",
)  # fmt: skip
_POLICY_TOP: Final = (*_POLICY, "tunnel", "proxyProtocol", "retryBudget")


def _below(prefix: str, paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{prefix}.{path}" for path in paths)


UNBUILT: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("networking.istio.io", "VirtualService"): (
        "spec.tls", "spec.http[].delegate", "spec.http[].mirror", "spec.http[].mirrors", "spec.http[].mirrorPercent",
        "spec.http[].mirrorPercentage", "spec.http[].corsPolicy", "spec.http[].rewrite.uriRegexRewrite",
        "spec.http[].retries.retryRemoteLocalities", "spec.http[].retries.retryIgnorePreviousHosts",
        "spec.http[].retries.backoff", "spec.http[].fault.delay.exponentialDelay", "spec.http[].fault.delay.percent",
        "spec.http[].fault.abort.http2Error", "spec.http[].match[].statPrefix", "spec.tcp[].match[].sourceSubnet",
        "spec.tcp[].match[].destinationSubnets", "spec.http[].directResponse.body.bytes",
    ),
    ("networking.istio.io", "DestinationRule"): (
        "spec.workloadSelector",
        *_below("spec.trafficPolicy", _POLICY_TOP),
        *_below("spec.trafficPolicy.portLevelSettings[]", _POLICY),
        *_below("spec.subsets[].trafficPolicy", _POLICY_TOP),
        *_below("spec.subsets[].trafficPolicy.portLevelSettings[]", _POLICY),
    ),
    ("networking.istio.io", "Gateway"): (
        "spec.servers[].tls.caCrl", "spec.servers[].tls.insecureSkipVerify", "spec.servers[].bind",
        "spec.servers[].port.targetPort", "spec.servers[].defaultEndpoint",
    ),
    ("networking.istio.io", "ServiceEntry"): (
        "spec.subjectAltNames", "spec.endpoints[].network",
    ),
    ("networking.istio.io", "WorkloadEntry"): ("spec.network",),
    ("networking.istio.io", "WorkloadGroup"): ("spec.template.network", "spec.metadata.annotations"),
    ("networking.istio.io", "Sidecar"): (
        "spec.ingress", "spec.inboundConnectionPool", "spec.outboundTrafficPolicy", "spec.egress[].port",
        "spec.egress[].bind",
    ),
    ("config.istio.io", "handler"): ("spec.adapter", "spec.connection"),
    ("config.istio.io", "instance"): ("spec.template", "spec.attributeBindings"),
    ("config.istio.io", "rule"): ("spec.requestHeaderOperations", "spec.responseHeaderOperations", "spec.sampling"),
}  # fmt: skip
"""(group, kind) -> paths."""

UNBUILT_VALUES: Final[Mapping[tuple[str, str], tuple[tuple[str, frozenset[str]], ...]]] = {
    ("networking.istio.io", "ServiceEntry"): (("spec.resolution", frozenset({"DYNAMIC_DNS"})),),
    ("networking.istio.io", "Sidecar"): (
        ("spec.egress[].captureMode", frozenset({"IPTABLES", "NONE"})),
    ),
    ("networking.istio.io", "DestinationRule"): tuple(
        (f"{place}.tls.mode", frozenset({"SIMPLE", "MUTUAL"}))
        for place in (
            "spec.trafficPolicy",
            "spec.trafficPolicy.portLevelSettings[]",
            "spec.subsets[].trafficPolicy",
            "spec.subsets[].trafficPolicy.portLevelSettings[]",
        )
    ),
}
"""Values of a field that no builder reads yet, though it reads the field."""


def unbuilt_fields(group: str, kind: str, raw: Mapping[str, Any]) -> Iterator[str]:
    """Exact paths of the fields that are set, and not built."""
    for pattern in UNBUILT.get((group, kind), ()):
        for path, _ in _find(raw, pattern.split("."), ""):
            yield path
    for pattern, values in UNBUILT_VALUES.get((group, kind), ()):
        for path, value in _find(raw, pattern.split("."), ""):
            if isinstance(value, str) and value in values:
                yield path


def _find(value: Any, steps: list[str], path: str) -> Iterator[tuple[str, Any]]:
    if not steps:
        if value not in (None, "", 0, False) and value not in ([], {}):
            yield path, value
        return
    step, rest = steps[0], steps[1:]
    name = step.removesuffix("[]")
    if not isinstance(value, dict) or name not in value:
        return
    below = f"{path}.{name}" if path else name
    if step == name:
        yield from _find(value[name], rest, below)
        return
    items = value[name] if isinstance(value[name], list) else []
    for index, item in enumerate(items):
        yield from _find(item, rest, f"{below}[{index}]")
