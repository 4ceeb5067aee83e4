"""Which process each part of the mesh is: commands, environments, logs. Pure: a plan and ports in, ChildSpecs out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from windward.identity.names import ROOT_NAMESPACE, TRUST_DOMAIN
from windward.local.addresses import Mode, Place, Plan
from windward.local.child import ChildSpec
from windward.local.topology import Gateway, Workload

AGENT_GROUP = 1337
"""The interception rules let this group's traffic pass, the agent's own calls to the control plane among it."""
HTTP_PROXY_PORT = 15002
STATUS_PORT = 15020
ADMIN_PORT = 15000


@dataclass(frozen=True, slots=True)
class Ports:
    """Free ports of the control plane, chosen once so that a restarted part keeps its address."""

    etcd_client: int
    etcd_peer: int
    citadel_tls: int
    citadel_mtls: int
    citadel_metrics: int
    pilot_mtls: int
    pilot_tls: int
    pilot_metrics: int
    mixer_grpc: int
    mixer_metrics: int


@dataclass(frozen=True, slots=True)
class Options:
    """What a user of the local mesh may change."""

    trust_domain: str = TRUST_DOMAIN
    certificate_ttl_s: int = 3600
    endpoint_ttl_s: float = 5.0
    outbound_traffic_policy: str = "ALLOW_ANY"
    mixer: bool = True
    log_level: str = "info"
    ipv6: bool = False
    """In namespaces: workloads have an IPv6 address beside the other one, and what they say by it is intercepted too."""
    gateway_secrets: str = ""
    """Folder of the certificates that Gateways name in credentialName; empty: none."""
    gateway_accounts: tuple[str, ...] = ()
    """With it: NAMESPACE/SERVICE_ACCOUNT of the gateways that may have them."""
    interception: Literal["redirect", "tproxy"] = "redirect"
    """Of workloads, in namespaces: with tproxy their applications see their clients' own addresses."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Makes the ChildSpecs of one mesh."""

    directory: Path
    plan: Plan
    ports: Ports
    options: Options

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def state(self, name: str) -> Path:
        return self.directory / "state" / name

    def token_file(self, name: str) -> Path:
        return self.state(name) / "token"

    @property
    def trust_bundle_file(self) -> Path:
        return self.state("citadel") / "bootstrap" / "root-cert.pem"

    def control(self, port: int) -> str:
        return f"{self.plan.control_address}:{port}"

    @property
    def store_url(self) -> str:
        return f"etcd://127.0.0.1:{self.ports.etcd_client}"

    def citadel(self) -> ChildSpec:
        ports, state = self.ports, self.state("citadel")
        return self._service(
            "citadel",
            {
                "--store": self.store_url,
                "--trust-domain": self.options.trust_domain,
                "--tls-address": self.control(ports.citadel_tls),
                "--mtls-address": self.control(ports.citadel_mtls),
                "--metrics-address": f"127.0.0.1:{ports.citadel_metrics}",
                "--kek-file": str(state / "kek"),
                "--bootstrap-dir": str(state / "bootstrap"),
                "--default-ttl": f"{self.options.certificate_ttl_s}s",
            },
        )

    def pilot(self) -> ChildSpec:
        ports = self.ports
        flags = {
            **self._identity("pilot"),
            "--mtls-address": self.control(ports.pilot_mtls),
            "--tls-address": self.control(ports.pilot_tls),
            "--metrics-address": f"127.0.0.1:{ports.pilot_metrics}",
            "--endpoint-ttl": f"{self.options.endpoint_ttl_s}s",
            "--outbound-traffic-policy": self.options.outbound_traffic_policy,
        }
        if self.options.mixer:
            flags["--mixer-address"] = self.control(ports.mixer_grpc)
        if self.options.gateway_secrets:
            flags["--gateway-secrets"] = self.options.gateway_secrets
            flags["--gateway-accounts"] = ",".join(self.options.gateway_accounts)
        return self._service("pilot", flags)

    def mixer(self) -> ChildSpec:
        return self._service(
            "mixer",
            {
                **self._identity("mixer"),
                "--grpc-address": self.control(self.ports.mixer_grpc),
                "--metrics-address": f"127.0.0.1:{self.ports.mixer_metrics}",
            },
        )

    def application(self, workload: Workload) -> ChildSpec:
        place = self.plan.place(workload.name)
        environment = {
            **workload.environment,
            "BOOKSHOP_HOST": place.app_address,
            "BOOKSHOP_PORT": str(workload.port),
        }
        if self.plan.mode is Mode.LOOPBACK:
            environment["http_proxy"] = f"http://{place.address}:{HTTP_PROXY_PORT}"
        return ChildSpec(
            name=f"{workload.name}/app",
            command=tuple(word.replace("{python}", sys.executable) for word in workload.command),
            log=self.log(f"{workload.name}-app"),
            environment=environment,
            namespace=place.namespace,
        )

    def sidecar(self, workload: Workload) -> ChildSpec:
        extra = {"--workload-group": workload.group}
        place = self.plan.place(workload.name)
        if self.plan.mode is Mode.LOOPBACK:
            extra["--app-address"] = place.app_address
        else:
            extra["--dns-capture"] = "true"
            extra["--interception"] = self.options.interception
        return self._agent(workload.name, workload.namespace, workload.service_account, extra)

    def gateway(self, gateway: Gateway) -> ChildSpec:
        labels = ",".join(f"{key}={value}" for key, value in sorted(gateway.labels.items()))
        extra = {"--proxy-type": "router", "--labels": labels}
        return self._agent(gateway.name, gateway.namespace, gateway.service_account, extra)

    def admin_address(self, place: Place) -> tuple[str, int]:
        return ("127.0.0.1" if self.plan.mode is Mode.NAMESPACES else place.address, ADMIN_PORT)

    def _agent(
        self, name: str, namespace: str, service_account: str, extra: dict[str, str]
    ) -> ChildSpec:
        place = self.plan.place(name)
        ports = self.ports
        intercepted = self.plan.mode is Mode.NAMESPACES
        host, port = self.admin_address(place)
        flags = {
            "--citadel-address": self.control(ports.citadel_tls),
            "--citadel-mtls-address": self.control(ports.citadel_mtls),
            "--pilot-address": self.control(ports.pilot_mtls),
            "--trust-bundle-file": str(self.trust_bundle_file),
            "--trust-domain": self.options.trust_domain,
            "--token-file": str(self.token_file(name)),
            "--state-dir": str(self.state(name)),
            "--namespace": namespace,
            "--service-account": service_account,
            "--workload-name": name,
            "--address": place.address,
            "--interception": "redirect" if intercepted else "none",
            "--admin-address": f"{host}:{port}",
            "--status-address": f"{place.address}:{STATUS_PORT}",
            "--certificate-ttl": f"{self.options.certificate_ttl_s}s",
            "--log-level": self.options.log_level,
            **extra,
        }
        if place.address6:
            flags["--instance-ips"] = f"{place.address},{place.address6}"
        return ChildSpec(
            name=name,
            command=_command("agent", flags),
            log=self.log(f"{name}-agent"),
            namespace=place.namespace,
            group=AGENT_GROUP if intercepted else None,
        )

    def _identity(self, name: str) -> dict[str, str]:
        return {
            "--store": self.store_url,
            "--trust-domain": self.options.trust_domain,
            "--citadel-address": self.control(self.ports.citadel_tls),
            "--citadel-mtls-address": self.control(self.ports.citadel_mtls),
            "--trust-bundle-file": str(self.trust_bundle_file),
            "--token-file": str(self.token_file(name)),
            "--state-dir": str(self.state(name)),
        }

    def _service(self, name: str, flags: dict[str, str]) -> ChildSpec:
        flags = {**flags, "--log-level": self.options.log_level}
        return ChildSpec(name=name, command=_command(name, flags), log=self.log(name))


def _command(service: str, flags: dict[str, str]) -> tuple[str, ...]:
    words = [word for flag in flags.items() for word in flag]
    return (sys.executable, "-m", f"services.{service}.main", *words)


def identity(
    account: str, namespace: str = ROOT_NAMESPACE, trust_domain: str = TRUST_DOMAIN
) -> str:
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}"
