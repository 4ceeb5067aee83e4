"""DestinationRule: what applies to a host once routing has chosen it. Source: destination_rule.proto, validation.go."""

from __future__ import annotations

from windward.config.common import (
    check_duration,
    check_export_to,
    check_labels,
    check_port,
    check_selector,
    check_wildcard_host,
)
from windward.config.hosts import fqdn_fault, is_ip, is_label
from windward.config.metadata import Metadata
from windward.config.peer_authentication import LabelSelector
from windward.config.report import Report
from windward.config.traffic_policy import (
    ClientTLSMode,
    ClientTLSSettings,
    ConnectionPoolSettings,
    ConsistentHashLB,
    LoadBalancerSettings,
    LocalityLoadBalancerSetting,
    OutlierDetection,
    PortTrafficPolicy,
    SimpleLB,
    TrafficPolicy,
    TunnelSettings,
)
from windward.config.types import Spec


class Subset(Spec, frozen=True):
    name: str = ""
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRule(Spec, frozen=True):
    host: str = ""
    traffic_policy: TrafficPolicy | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    workload_selector: LabelSelector | None = None


def validate(spec: DestinationRule, metadata: Metadata, report: Report) -> None:
    if not spec.host:
        report.at("host").error("required", "must be set")
    else:
        check_wildcard_host(spec.host, report.at("host"))
    if spec.traffic_policy is not None:
        check_traffic_policy(spec.traffic_policy, report.at("trafficPolicy"))
    names: set[str] = set()
    for index, subset in enumerate(spec.subsets):
        entry = report.at("subsets", index)
        if not is_label(subset.name):
            entry.at("name").error("invalid-value", f"must be a DNS label, is {subset.name!r}")
        elif subset.name in names:
            entry.at("name").error("duplicate", f"{subset.name} stands twice")
        names.add(subset.name)
        check_labels(subset.labels, entry.at("labels"))
        if subset.traffic_policy is not None:
            check_traffic_policy(subset.traffic_policy, entry.at("trafficPolicy"))
    check_export_to(spec.export_to, report.at("exportTo"), metadata.namespace)
    if spec.workload_selector is not None:
        if any(name not in {".", metadata.namespace} for name in spec.export_to):
            report.at("exportTo").error(
                "conflict",
                "a rule with a workloadSelector holds in its own namespace only",
                "write . or leave it out",
            )
        if not spec.workload_selector.match_labels:
            report.at("workloadSelector").warn(
                "unreachable", "selects every workload: it has no labels"
            )
        check_selector(
            spec.workload_selector.match_labels, report.at("workloadSelector", "matchLabels")
        )


def check_traffic_policy(policy: TrafficPolicy, report: Report) -> None:
    sections = (
        policy.load_balancer, policy.connection_pool, policy.outlier_detection, policy.tls,
        policy.port_level_settings, policy.tunnel, policy.proxy_protocol, policy.retry_budget,
    )  # fmt: skip
    if not any(section is not None and section != () for section in sections):
        report.error("required", "must set something")
    _sections(policy, report)
    if policy.tunnel is not None:
        _tunnel(policy.tunnel, report.at("tunnel"))
    if policy.retry_budget is not None and policy.retry_budget.percent is not None:
        if not 0 <= policy.retry_budget.percent <= 100:
            report.at("retryBudget", "percent").error("out-of-range", "must be between 0 and 100")
    for index, setting in enumerate(policy.port_level_settings):
        entry = report.at("portLevelSettings", index)
        if setting.port is None:
            entry.at("port").error("required", "must be set")
        else:
            check_port(setting.port.number, entry.at("port", "number"))
        _sections(setting, entry)


def _sections(policy: TrafficPolicy | PortTrafficPolicy, report: Report) -> None:
    if policy.load_balancer is not None:
        check_load_balancer(
            policy.load_balancer, policy.outlier_detection, report.at("loadBalancer")
        )
    if policy.connection_pool is not None:
        check_connection_pool(policy.connection_pool, report.at("connectionPool"))
    if policy.outlier_detection is not None:
        check_outlier_detection(policy.outlier_detection, report.at("outlierDetection"))
    if policy.tls is not None:
        check_client_tls(policy.tls, report.at("tls"))


def check_load_balancer(
    settings: LoadBalancerSettings, outlier: OutlierDetection | None, report: Report
) -> None:
    report.one_of({"simple": settings.simple, "consistentHash": settings.consistent_hash})
    if settings.simple is SimpleLB.LEAST_CONN:
        report.at("simple").warn("deprecated", "LEAST_CONN is deprecated", "use LEAST_REQUEST")
    if settings.locality_lb_setting is not None and settings.zone_aware_lb_setting is not None:
        report.error("conflict", "only one of localityLbSetting and zoneAwareLbSetting may be set")
    if settings.consistent_hash is not None:
        _consistent_hash(settings.consistent_hash, report.at("consistentHash"))
    for name in ("warmup_duration_secs",):
        value = getattr(settings, name)
        if value is not None:
            check_duration(value, report.at("warmupDurationSecs"))
    if settings.warmup is not None:
        warmup, entry = settings.warmup, report.at("warmup")
        if settings.warmup_duration_secs is not None:
            entry.error("conflict", "only one of warmup and warmupDurationSecs may be set")
        if warmup.duration is None:
            entry.at("duration").error("required", "must be set")
        else:
            check_duration(warmup.duration, entry.at("duration"))
        if warmup.minimum_percent is not None and not 0 <= warmup.minimum_percent <= 100:
            entry.at("minimumPercent").error("out-of-range", "must be between 0 and 100")
        if warmup.aggression is not None and warmup.aggression < 1:
            entry.at("aggression").error("out-of-range", "must be at least 1")
    if settings.locality_lb_setting is not None:
        _locality(settings.locality_lb_setting, outlier, report.at("localityLbSetting"))


def _consistent_hash(settings: ConsistentHashLB, report: Report) -> None:
    keys = {
        "httpHeaderName": settings.http_header_name,
        "httpCookie": settings.http_cookie,
        "useSourceIp": settings.use_source_ip,
        "httpQueryParameterName": settings.http_query_parameter_name,
    }
    report.one_of(keys, required=True)
    report.one_of({"ringHash": settings.ring_hash, "maglev": settings.maglev})
    cookie = settings.http_cookie
    if cookie is not None:
        if not cookie.name:
            report.at("httpCookie", "name").error("required", "must be set")
        names = [attribute.name for attribute in cookie.attributes]
        for index, name in enumerate(names):
            entry = report.at("httpCookie", "attributes", index, "name")
            if not name:
                entry.error("required", "must be set")
            elif name in names[:index]:
                entry.error("duplicate", f"{name} stands twice")
        if cookie.ttl is not None and cookie.ttl < 0:
            report.at("httpCookie", "ttl").error("out-of-range", "must not be negative")
    if settings.ring_hash is not None and settings.minimum_ring_size:
        report.at("minimumRingSize").error(
            "conflict", "only one of minimumRingSize and ringHash may be set"
        )
    if settings.maglev is not None and settings.maglev.table_size:
        size = settings.maglev.table_size
        if size > 5_000_011 or not _is_prime(size):
            report.at("maglev", "tableSize").error(
                "invalid-value", f"must be a prime up to 5000011, is {size}"
            )


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _locality(
    setting: LocalityLoadBalancerSetting, outlier: OutlierDetection | None, report: Report
) -> None:
    if setting.distribute and (setting.failover or setting.failover_priority):
        report.error("conflict", "distribute does not go with failover or failoverPriority")
    sources: list[str] = []
    for index, item in enumerate(setting.distribute):
        entry = report.at("distribute", index)
        if any(_overlap(item.from_, source) for source in sources):
            entry.at("from").error("duplicate", f"{item.from_} overlaps with an earlier one")
        sources.append(item.from_)
        targets: list[str] = []
        for place, weight in item.to.items():
            if not 1 <= weight <= 100:
                entry.at("to").key(place).error(
                    "out-of-range", f"must be between 1 and 100, is {weight}"
                )
            if any(_overlap(place, other) for other in targets):
                entry.at("to").key(place).error("duplicate", "overlaps with another one")
            targets.append(place)
        if sum(item.to.values()) != 100:
            entry.at("to").error(
                "out-of-range", f"the weights must add up to 100, not {sum(item.to.values())}"
            )
    for index, failover in enumerate(setting.failover):
        entry = report.at("failover", index)
        if failover.from_ == failover.to:
            entry.error("conflict", "from and to are the same region")
        if any("/" in place or "*" in place for place in (failover.from_, failover.to)):
            entry.error("invalid-value", "must be regions, without zones or wildcards")
    if (setting.failover or setting.failover_priority) and outlier is None:
        report.warn("unreachable", "failover has no effect without outlierDetection")


def _overlap(one: str, other: str) -> bool:
    """Whether two localities (``region/zone/*``) have a place in common."""
    for left, right in zip(one.split("/"), other.split("/"), strict=False):
        if left == "*" or right == "*":
            return True
        if left != right:
            return False
    return True


def check_connection_pool(settings: ConnectionPoolSettings, report: Report) -> None:
    if settings.tcp is None and settings.http is None:
        report.error("required", "must set tcp or http")
    if settings.http is not None:
        http, entry = settings.http, report.at("http")
        for name, value in (
            ("http1MaxPendingRequests", http.http1_max_pending_requests),
            ("http2MaxRequests", http.http2_max_requests),
            ("maxRequestsPerConnection", http.max_requests_per_connection),
            ("maxRetries", http.max_retries),
            ("maxConcurrentStreams", http.max_concurrent_streams),
        ):
            if value < 0:
                entry.at(name).error("out-of-range", f"must not be negative, is {value}")
        if http.idle_timeout:
            check_duration(http.idle_timeout, entry.at("idleTimeout"))
        if http.http2_keep_alive is not None:
            keepalive, place = http.http2_keep_alive, entry.at("http2KeepAlive")
            if keepalive.interval is None:
                place.at("interval").error("required", "must be set")
            for name, duration in (
                ("interval", keepalive.interval),
                ("timeout", keepalive.timeout),
            ):
                if duration is not None:
                    check_duration(duration, place.at(name))
        if http.use_client_protocol and http.h2_upgrade_policy.value == "UPGRADE":
            entry.error("conflict", "useClientProtocol does not go with h2UpgradePolicy UPGRADE")
    if settings.tcp is not None:
        tcp, entry = settings.tcp, report.at("tcp")
        if tcp.max_connections < 0:
            entry.at("maxConnections").error(
                "out-of-range", f"must not be negative, is {tcp.max_connections}"
            )
        for name, duration in (
            ("connectTimeout", tcp.connect_timeout),
            ("maxConnectionDuration", tcp.max_connection_duration),
            ("idleTimeout", tcp.idle_timeout),
        ):
            if duration is not None and (duration or name != "idleTimeout"):
                check_duration(duration, entry.at(name))
        if tcp.tcp_keepalive is not None:
            for name, duration in (
                ("time", tcp.tcp_keepalive.time),
                ("interval", tcp.tcp_keepalive.interval),
            ):
                if duration is not None and duration < 1:
                    entry.at("tcpKeepalive", name).error("out-of-range", "must be at least 1 s")


def check_outlier_detection(outlier: OutlierDetection, report: Report) -> None:
    for name, duration in (
        ("interval", outlier.interval),
        ("baseEjectionTime", outlier.base_ejection_time),
    ):
        if duration is not None:
            check_duration(duration, report.at(name))
    for name, value in (
        ("maxEjectionPercent", outlier.max_ejection_percent),
        ("minHealthPercent", outlier.min_health_percent),
    ):
        if not 0 <= value <= 100:
            report.at(name).error("out-of-range", f"must be between 0 and 100, is {value}")
    if outlier.consecutive_errors:
        report.at("consecutiveErrors").warn(
            "deprecated", "is deprecated", "use consecutiveGatewayErrors or consecutive5xxErrors"
        )
    if not outlier.split_external_local_origin_errors and outlier.consecutive_local_origin_failures:
        report.at("consecutiveLocalOriginFailures").error(
            "conflict", "needs splitExternalLocalOriginErrors"
        )
    for index, code in enumerate(outlier.outlier_detection_http_error_codes):
        if not 100 <= code <= 599:
            report.at("outlierDetectionHttpErrorCodes", index).error(
                "out-of-range", f"{code} is not an HTTP status"
            )


def check_client_tls(tls: ClientTLSSettings, report: Report) -> None:
    files = (tls.client_certificate, tls.private_key, tls.ca_certificates)
    if tls.insecure_skip_verify and (tls.ca_certificates or tls.subject_alt_names):
        report.error(
            "conflict", "insecureSkipVerify does not go with caCertificates or subjectAltNames"
        )
    if tls.mode is ClientTLSMode.MUTUAL:
        if tls.credential_name:
            if any(files):
                report.error("conflict", "only one of credentialName and files may be set")
        else:
            if not tls.client_certificate:
                report.at("clientCertificate").error(
                    "required", "must be set with MUTUAL, or a credentialName"
                )
            if not tls.private_key:
                report.at("privateKey").error(
                    "required", "must be set with MUTUAL, or a credentialName"
                )
    elif tls.mode is ClientTLSMode.SIMPLE:
        if tls.client_certificate or tls.private_key:
            report.error("conflict", "SIMPLE has no client certificate", "use MUTUAL")
        if tls.credential_name and tls.ca_certificates:
            report.error("conflict", "only one of credentialName and caCertificates may be set")
    elif tls.mode is ClientTLSMode.ISTIO_MUTUAL and any((*files, tls.credential_name)):
        report.error(
            "conflict", "ISTIO_MUTUAL uses the mesh's own certificates: no files, no credentialName"
        )


def _tunnel(tunnel: TunnelSettings, report: Report) -> None:
    if tunnel.protocol not in {"", "CONNECT", "POST"}:
        report.at("protocol").error("invalid-value", "must be CONNECT or POST")
    if not is_ip(tunnel.target_host) and (problem := fqdn_fault(tunnel.target_host)):
        report.at("targetHost").error("invalid-host", problem)
    check_port(tunnel.target_port, report.at("targetPort"))
