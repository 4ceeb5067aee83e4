"""windward-pilot: services, traffic and security configuration in, xDS out.

    settings -> certificate (from Citadel) -> store -> index -> groups -> streams; beside them the APIs

Drain: health says NOT_SERVING, streams end (clients move to another Pilot), the index stops, the store closes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
from grpc_health.v1._async import HealthServicer

from services.pilot import metrics
from services.pilot.api.access import Access
from services.pilot.api.config import ConfigService
from services.pilot.api.registry import RegistryService
from services.pilot.envoy.generate import Options
from services.pilot.groups import Groups
from services.pilot.index import Index, Timing
from services.pilot.settings import Settings
from services.pilot.xds.connected import ConnectedProxies
from services.pilot.xds.server import SERVICE as ADS
from services.pilot.xds.server import DiscoveryServer
from windward.api.config.v1 import config_pb2_grpc
from windward.api.registry.v1 import registry_pb2_grpc
from windward.client.certificates import CertificateKeeper, Enrolment, RefusedByCitadel
from windward.identity.names import PILOT_ACCOUNT, ROOT_NAMESPACE
from windward.identity.spiffe_id import workload_id
from windward.process import FatalError, Lifecycle, run
from windward.rpc import server as servers
from windward.rpc.errors import ErrorInterceptor
from windward.rpc.http import serve_http
from windward.store.open import open_store
from windward.store.protocol import Store
from windward.telemetry.logging import get_logger
from windward.telemetry.metrics import metrics_routes

log = get_logger()
SERVICES = (ADS, "windward.config.v1.ConfigService", "windward.registry.v1.RegistryService")
DRAIN_S = 5.0


def enrolment(settings: Settings) -> Enrolment:
    return Enrolment(
        identity=workload_id(settings.trust_domain, ROOT_NAMESPACE, PILOT_ACCOUNT),
        tls_address=settings.citadel_address,
        mtls_address=settings.citadel_mtls_address,
        trust_bundle_file=Path(settings.trust_bundle_file),
        token_file=Path(settings.token_file),
        state_dir=Path(settings.state_dir),
    )


async def serve(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run until told to stop."""
    try:
        store = open_store(settings.store)
    except (ValueError, OSError) as error:
        raise FatalError(str(error)) from error
    groups = Groups(
        Options(
            settings.trust_domain,
            settings.outbound_traffic_policy == "ALLOW_ANY",
            settings.mixer_address,
        )
    )
    timing = Timing(settings.endpoint_delay, settings.config_quiet, settings.config_longest)
    index = Index(store, groups, settings.endpoint_ttl, timing)
    index.on_published = lambda seconds: _published(groups, seconds)
    state = "waiting for a certificate from Citadel"
    host, _, port = settings.metrics_address.rpartition(":")
    try:
        http = await serve_http(
            host,
            int(port),
            metrics_routes(
                metrics.REGISTRY,
                lambda: state or ("" if index.ready.is_set() else "reading the store"),
            ),
        )
    except (OSError, ValueError) as error:
        raise FatalError(f"--metrics-address {settings.metrics_address}: {error}") from error
    keeper = CertificateKeeper(enrolment(settings))
    async with asyncio.TaskGroup() as group:
        stop = group.create_task(lifecycle.stopping.wait())
        first = group.create_task(_first(keeper))
        await asyncio.wait({stop, first}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            first.cancel()
            return
        first.result()
        tasks = [group.create_task(keeper.run()), group.create_task(index.run())]
        server, health = await _listen(settings, lifecycle, store, keeper, groups, index, http)
        state = ""
        await stop
        await health.enter_graceful_shutdown()
        await server.stop(DRAIN_S)
        for task in tasks:
            task.cancel()
    http.close()
    await store.close()


async def _first(keeper: CertificateKeeper) -> None:
    try:
        await keeper.first()
    except RefusedByCitadel as error:
        raise FatalError(str(error)) from error


async def _listen(
    settings: Settings,
    lifecycle: Lifecycle,
    store: Store,
    keeper: CertificateKeeper,
    groups: Groups,
    index: Index,
    http: asyncio.Server,
) -> tuple[grpc.aio.Server, HealthServicer]:
    """Register every service and open the ports."""
    server = servers.new_server(interceptors=[ErrorInterceptor()])
    connected = ConnectedProxies()
    discovery = DiscoveryServer(groups, connected, lifecycle.stopping)
    discovery.ready = index.ready.is_set
    server.add_generic_rpc_handlers((discovery.handlers(),))
    access = Access(settings.trust_domain)
    config_pb2_grpc.add_ConfigServiceServicer_to_server(
        ConfigService(store, access, connected, settings.mtls_address),
        server,
    )
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(
        RegistryService(store, access, settings.endpoint_ttl),
        server,
    )
    health = servers.add_standard_services(server, SERVICES)
    ports = {
        "mtls": servers.listen_mtls(
            server, settings.mtls_address, keeper.source, setting="--mtls-address"
        )
    }
    if settings.tls_address:
        ports["tls"] = servers.listen_tls(
            server, settings.tls_address, keeper.source, setting="--tls-address"
        )
    if settings.plaintext_address:
        ports["plaintext"] = servers.listen_plaintext(
            server, settings.plaintext_address, setting="--plaintext-address"
        )
    await server.start()
    await servers.set_serving(health, SERVICES)
    lifecycle.listening(**ports, metrics=http.sockets[0].getsockname()[1])
    log.info("pilot.listening", mtls=settings.mtls_address)
    return server, health


def _published(groups: Groups, seconds: float) -> None:
    metrics.PUBLISH_TIME.observe(seconds)
    metrics.SERVICES.set(len(groups.snapshot.services))
    metrics.VIRTUAL_SERVICES.set(len(groups.snapshot.virtual_services))


def main() -> None:
    sys.exit(run("windward-pilot", Settings, serve, description=(__doc__ or "").splitlines()[0]))


if __name__ == "__main__":
    main()
