"""windward-pilot: services, traffic and security configuration in, xDS out.

    settings -> certificate (from Citadel) -> store -> index -> groups -> streams; beside them the APIs

--workers starts several of these on the same ports (workers.py).

Drain: health says NOT_SERVING, streams end (clients move to another Pilot), the index stops, the store closes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from structlog import contextvars

from services.pilot import metrics
from services.pilot.blame.judge import Engine, Judge
from services.pilot.collector import keep_collections_short
from services.pilot.credentials.folder import Folder
from services.pilot.due import Timing
from services.pilot.envoy.options import Options
from services.pilot.groups import Groups
from services.pilot.housekeeping import keep_house
from services.pilot.index import Index, Published
from services.pilot.loop_watch import LoopWatch
from services.pilot.pilots import Pilots, host_of
from services.pilot.running import Running
from services.pilot.scratch.envoy import ScratchEnvoy, find_envoy
from services.pilot.settings import Settings
from services.pilot.siblings import Siblings
from services.pilot.workers import end_with_stdin, serve_workers
from services.pilot.xds.connected import ConnectedProxies
from services.pilot.xds.limits import Limits
from services.pilot.xds.requests import ADS
from services.pilot.xds.requests import SERVICES as SINGLE_TYPE
from services.pilot.xds.server import DiscoveryServer
from windward.client.certificates import CertificateKeeper
from windward.client.enrolment import control_plane_enrolment, enrolled
from windward.descriptors import make_room
from windward.identity.names import PILOT_ACCOUNT
from windward.process import Lifecycle, run
from windward.rpc import server as servers
from windward.rpc.http import http_at
from windward.rpc.http2.server import Http2Server
from windward.store.open import first_place, store_at
from windward.store.protocol import Store
from windward.telemetry.logging import get_logger
from windward.xds.resource import ResourceSet

log = get_logger()
SERVICES = (
    ADS,
    *SINGLE_TYPE,
    "windward.admin.v1.AdminService",
    "windward.config.v1.ConfigService",
    "windward.registry.v1.RegistryService",
)
DRAIN_S = 5.0
OTHER_DESCRIPTORS = 1_000
"""Beside those of streams: callers of the other services, the store, files."""


async def serve(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run until told to stop."""
    if settings.workers > 1:
        await serve_workers(settings, lifecycle)
        return
    siblings = Siblings.beside(settings.worker)
    if settings.worker:
        contextvars.bind_contextvars(worker=siblings.number)
        end_with_stdin(lifecycle)
    make_room(settings.most_streams + OTHER_DESCRIPTORS)
    watch = LoopWatch()
    if watch.attach(asyncio.get_running_loop()):
        metrics.watch_loop(watch)
    async with store_at(settings.store) as store:
        try:
            await _serve(settings, lifecycle, store, siblings)
        finally:
            await siblings.close()


async def _serve(
    settings: Settings, lifecycle: Lifecycle, store: Store, siblings: Siblings
) -> None:
    groups = Groups(
        Options(
            settings.trust_domain,
            settings.outbound_traffic_policy == "ALLOW_ANY",
            settings.mixer_address,
            settings.accounts(),
        ),
        settings.linger,
    )
    index = _index(settings, store, groups)
    discovery = DiscoveryServer(groups, ConnectedProxies(), _limits(settings))
    judge = _judge(settings, groups, index, discovery)
    given = settings.advertise_address
    host = "" if given else await host_of(settings.mtls_address, first_place(settings.store))
    address = given or f"{host}:{settings.mtls_address.rpartition(':')[2]}"
    pilot = Running(settings, store, siblings, index, discovery, judge, address)
    keeper = CertificateKeeper(control_plane_enrolment(settings, PILOT_ACCOUNT))
    async with http_at(
        settings.metrics_address,
        pilot.routes(),
        setting="--metrics-address",
        tls=lambda: None if pilot.waiting else keeper.source.current,
        shared=bool(settings.worker),
    ) as metrics_port:
        if not await enrolled(keeper, lifecycle.stopping):
            return
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(keeper.run()),
                group.create_task(keep_collections_short()),
                group.create_task(index.run()),
                group.create_task(keep_house(store, settings.history_limit)),
                group.create_task(judge.run()),
                group.create_task(index.reach.align()),
            ]
            discovery.ready, discovery.reach = index.ready, index.reach
            server, beside = pilot.server(), pilot.server_beside()
            server.add_behaviours(discovery.behaviours())
            index.on_push = server.read_little
            health = servers.add_standard_services(server, SERVICES)
            ports = _listen(settings, server, keeper)
            await server.start()
            await beside.start()
            await servers.set_serving(health, SERVICES)
            lifecycle.listening(**ports, metrics=metrics_port)
            reached = given or f"{host}:{ports['mtls']}"
            others = Pilots(store, reached, keeper.source, listed=siblings.number == 0)
            siblings.pilots = others.channels
            tasks.append(group.create_task(others.run()))
            log.info("pilot.listening", mtls=settings.mtls_address)
            pilot.waiting = ""
            await lifecycle.stopping.wait()
            await health.enter_graceful_shutdown()
            await discovery.drain()
            await asyncio.gather(server.stop(DRAIN_S), beside.stop(0))
            for task in tasks:
                task.cancel()
            await others.leave()


def _index(settings: Settings, store: Store, groups: Groups) -> Index:
    timing = Timing(settings.endpoint_delay, settings.config_quiet, settings.config_longest)
    folder = Folder(Path(settings.gateway_secrets)) if settings.gateway_secrets else None
    return Index(store, groups, settings.endpoint_ttl, timing, settings.sources(), folder)


def _judge(settings: Settings, groups: Groups, index: Index, discovery: DiscoveryServer) -> Judge:
    """What proxies say of resources becomes the status of objects."""
    engine = Engine(
        groups.options,
        lambda: index.snapshot,
        index.objects,
        groups.resource,
        index.refuse,
        discovery.hold,
    )
    binary = find_envoy("" if settings.scratch_envoy == "auto" else settings.scratch_envoy)
    judge = Judge(engine, ScratchEnvoy(binary) if binary else None)

    def synced(current: ResourceSet, since: int) -> None:
        for seconds in index.pushes.accepted(current, since, asyncio.get_running_loop().time()):
            metrics.CONVERGENCE.observe(seconds)

    index.on_changing = judge.changed
    index.on_published = _published
    discovery.tell(judge.answered, synced)
    groups.on_failed = judge.failed
    groups.on_own_failed = judge.own_failed
    return judge


def _limits(settings: Settings) -> Limits:
    return Limits(
        streams=settings.most_streams,
        streams_per_identity=settings.most_streams_per_identity,
        first_request_s=settings.first_request,
        first_syncs=settings.first_syncs,
        first_sync_s=settings.first_sync,
        longest_age_s=settings.stream_age,
        behind_s=settings.behind,
    )


def _listen(settings: Settings, server: Http2Server, keeper: CertificateKeeper) -> dict[str, int]:
    """Open the ports that are asked for."""
    ports = {
        "mtls": server.listen_mtls(settings.mtls_address, keeper.source, setting="--mtls-address")
    }
    if settings.tls_address:
        ports["tls"] = server.listen_tls(
            settings.tls_address, keeper.source, setting="--tls-address"
        )
    if settings.plaintext_address:
        ports["plaintext"] = server.listen_plaintext(
            settings.plaintext_address, setting="--plaintext-address"
        )
    return ports


def _published(published: Published) -> None:
    metrics.PUBLISH_TIME.observe(published.seconds)
    metrics.SERVICES.set(len(published.snapshot.services))
    metrics.VIRTUAL_SERVICES.set(published.snapshot.virtual_services)


def main() -> None:
    sys.exit(run("windward-pilot", Settings, serve, description=(__doc__ or "").splitlines()[0]))


if __name__ == "__main__":
    main()
