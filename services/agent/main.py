"""windward-agent: one workload's sidecar: certificate, Envoy, secrets, configuration, registration, status.

    certificate (Citadel) -> unix socket (SDS + xDS proxy) -> bootstrap -> Envoy -> registered at Pilot -> ready

Drain: deregistered first, then Envoy takes nothing new and lets the present connections end, then everything stops.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from services.agent.dns.workload import workload_dns
from services.agent.envoy.admin import Admin
from services.agent.envoy.bootstrap import SOCKET, bootstrap_text
from services.agent.envoy.process import EnvoyProcess, find_envoy
from services.agent.registration import Registration
from services.agent.sds.server import SecretServer
from services.agent.settings import Settings
from services.agent.status.routes import status_routes
from services.agent.xds_proxy.pilots import in_random_order
from services.agent.xds_proxy.proxy import XdsProxy
from services.agent.xds_proxy.session import NameSink
from windward.client.certificates import CertificateKeeper, Enrolment
from windward.client.enrolment import enrolled
from windward.identity.certificate import load_chain
from windward.identity.names import CONTROL_PLANE_DNS, PILOT_ACCOUNT
from windward.identity.spiffe_id import SpiffeIdError, workload_id
from windward.process import FatalError, Lifecycle, run
from windward.rpc import server as servers
from windward.rpc.channel import ChannelSource
from windward.rpc.errors import ErrorInterceptor
from windward.rpc.http import Routes, http_at
from windward.telemetry.logging import get_logger
from windward.telemetry.metrics import new_registry

log = get_logger()
BOOTSTRAP = "envoy.json"


def enrolment(settings: Settings) -> Enrolment:
    return Enrolment(
        identity=workload_id(settings.trust_domain, settings.namespace, settings.service_account),
        tls_address=settings.citadel_address,
        mtls_address=settings.citadel_mtls_address,
        trust_bundle_file=Path(settings.trust_bundle_file).absolute(),
        token_file=Path(settings.token_file).absolute(),
        state_dir=Path(settings.state_dir).absolute() / "identity",
        ttl_s=int(settings.certificate_ttl),
    )


async def serve(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run until told to stop."""
    binary = find_envoy(settings.envoy_binary)
    try:
        keeper = CertificateKeeper(enrolment(settings))
        Path(settings.state_dir).mkdir(parents=True, exist_ok=True, mode=0o711)
        os.chdir(settings.state_dir)
    except (SpiffeIdError, OSError) as error:
        raise FatalError(str(error)) from error
    try:
        admin = Admin(settings.admin_address)
    except ValueError as error:
        raise FatalError(f"--admin-address {settings.admin_address}: must be host:port") from error
    registry = new_registry()
    agent = _Agent(settings, lifecycle, keeper, admin, registry)
    async with (
        workload_dns(settings, registry) as (dns, dns_port),
        http_at(settings.status_address, agent.status_routes(), setting="--status-address") as port,
    ):
        lifecycle.listening(status=port, dns=dns_port)
        if await enrolled(keeper, lifecycle.stopping):
            async with asyncio.TaskGroup() as group:
                await agent.run(group, binary, dns.names if dns else None)


class _Agent:
    """The parts, wired."""

    def __init__(
        self,
        settings: Settings,
        lifecycle: Lifecycle,
        keeper: CertificateKeeper,
        admin: Admin,
        registry: CollectorRegistry,
    ) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._keeper = keeper
        self._admin = admin
        self._started = False
        self._registration: Registration | None = None
        self._registry = registry
        self._expiry = Gauge(
            "windward_agent_certificate_expiry_timestamp",
            "When the certificate expires",
            registry=self._registry,
        )
        self._connected = Gauge(
            "windward_agent_pilot_connected",
            "1 while connected to a Pilot",
            registry=self._registry,
        )

    def status_routes(self) -> Routes:
        return status_routes(
            self._admin, self._registry, self.not_ready, self._lifecycle.stopping.set
        )

    async def not_ready(self) -> str:
        if not self._started:
            return "waiting for a certificate from Citadel"
        reason = await self._admin.not_ready()
        if reason:
            return reason
        return (
            self._registration.problem
            if self._registration and not self._registration.registered.is_set()
            else ""
        )

    async def run(self, group: asyncio.TaskGroup, binary: str, names: NameSink | None) -> None:
        settings, source = self._settings, self._keeper.source
        pilot_name = CONTROL_PLANE_DNS[PILOT_ACCOUNT]
        pilots = in_random_order(settings.pilot_address, random.Random())  # noqa: S311  no secret
        channels = ChannelSource(pilots, server_name=pilot_name, source=source)
        proxy = XdsProxy(channels, names=names)
        server = servers.new_server(interceptors=[ErrorInterceptor()])
        server.add_generic_rpc_handlers((SecretServer(source).handlers(), proxy.handlers()))
        Path(SOCKET).unlink(missing_ok=True)
        servers.listen_plaintext(server, f"unix:{SOCKET}", setting="--state-dir")
        await server.start()
        self._open_to_envoy(Path(SOCKET))

        def expires_at() -> float:
            return load_chain(source.current.chain_pem)[0].not_valid_after_utc.timestamp()

        self._expiry.set_function(expires_at)
        self._connected.set_function(lambda: float(proxy.connected))
        config = Path(BOOTSTRAP)
        tasks = [group.create_task(self._keeper.run())]
        registering: asyncio.Task[None]
        labels = dict(settings.labels)
        if settings.workload_group:
            registry = ChannelSource(settings.pilot_address, server_name=pilot_name, source=source)
            self._registration = Registration(settings, registry, self._admin.serves_application)
            registering = group.create_task(self._registration.run())
        text = bootstrap_text(settings, labels)
        config.write_text(text)
        envoy = EnvoyProcess(settings, binary, text, self._admin)
        supervision = group.create_task(envoy.run())
        self._started = True
        await self._lifecycle.stopping.wait()
        log.info("agent.draining")
        if self._registration is not None:
            registering.cancel()
            await asyncio.gather(registering, return_exceptions=True)
            await self._registration.end()
        supervision.cancel()
        await envoy.stop()
        for task in tasks:
            task.cancel()
        await server.stop(0.5)
        await channels.close()

    def _open_to_envoy(self, socket: Path) -> None:
        """Only this user, and Envoy's, may talk to the socket: secrets come out of it."""
        socket.chmod(0o600)
        if os.geteuid() == 0 and self._settings.interception == "redirect":
            os.chown(socket, self._settings.proxy_uid, self._settings.proxy_uid)


def main() -> None:
    about = f"{(__doc__ or '').splitlines()[0]} Interception: `windward-agent netfilter --help`."
    sys.exit(run("windward-agent", Settings, serve, description=about))


if __name__ == "__main__":
    main()
