"""windward-mixer: policy and telemetry.

    configuration feed -> compiled rules (swapped whole)      ext_authz -> attributes -> rules -> verdict
    registrations      -> who is behind an address            ALS       -> the mesh's default metrics

Drain: health says NOT_SERVING, calls under way finish, streams end, the store closes.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from envoy.service.accesslog.v3 import als_pb2_grpc
from envoy.service.auth.v3 import external_auth_pb2_grpc

from services.mixer import metrics
from services.mixer.attributes.workloads import Workloads
from services.mixer.frontends.check import CheckService
from services.mixer.frontends.report import ReportService
from services.mixer.runtime.rules import RuleSet, compile_rules
from services.mixer.settings import Settings
from windward.client.certificates import CertificateKeeper
from windward.client.enrolment import control_plane_enrolment, enrolled
from windward.config.feed import follow_config
from windward.config.object import ConfigObject, ObjectKey
from windward.config.registry import MIXER
from windward.descriptors import make_room
from windward.identity.names import MIXER_ACCOUNT
from windward.process import Lifecycle, run
from windward.rpc import server as servers
from windward.rpc.http import http_at
from windward.rpc.http2.server import Http2Server
from windward.store.open import store_at
from windward.store.protocol import Store
from windward.telemetry.logging import get_logger
from windward.telemetry.metrics import metrics_routes

log = get_logger()
SERVICES = ("envoy.service.auth.v3.Authorization", "envoy.service.accesslog.v3.AccessLogService")
DRAIN_S = 5.0


class Policy:
    """The rules in force; one writer."""

    def __init__(self) -> None:
        self.current = RuleSet()
        self.ready = asyncio.Event()

    async def run(self, store: Store) -> None:
        objects: dict[ObjectKey, ConfigObject[Any]] = {}
        async for batch in follow_config(store):
            mine = [item for item in batch.upserts if item.key.group == MIXER]
            gone = [key for key in batch.removed if objects.pop(key, None)]
            objects.update({item.key: item for item in mine})
            if mine or gone or not self.ready.is_set():
                self.current = compile_rules(objects.values())
                for problem in self.current.problems:
                    metrics.RULE_PROBLEMS.inc()
                    log.warning("rule.left_out", reason=problem)
                log.info("rules.in_force", rules=len(self.current.rules), revision=batch.revision)
            self.ready.set()


async def serve(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run until told to stop."""
    make_room()
    policy, workloads = Policy(), Workloads()
    state = "waiting for a certificate from Citadel"
    routes = metrics_routes(
        metrics.REGISTRY, lambda: state or ("" if policy.ready.is_set() else "reading the store")
    )
    keeper = CertificateKeeper(control_plane_enrolment(settings, MIXER_ACCOUNT))
    async with (
        store_at(settings.store) as store,
        http_at(settings.metrics_address, routes, setting="--metrics-address") as metrics_port,
    ):
        if not await enrolled(keeper, lifecycle.stopping):
            return
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(keeper.run()),
                group.create_task(policy.run(store)),
                group.create_task(workloads.run(store)),
            ]
            await _ready_or_stopped(policy, lifecycle.stopping)
            server = Http2Server()
            external_auth_pb2_grpc.add_AuthorizationServicer_to_server(
                CheckService(lambda: policy.current, workloads), server
            )
            als_pb2_grpc.add_AccessLogServiceServicer_to_server(
                ReportService(workloads, settings.trust_domain), server
            )
            health = servers.add_standard_services(server, SERVICES)
            grpc_port = server.listen_mtls(
                settings.grpc_address, keeper.source, setting="--grpc-address"
            )
            await server.start()
            await servers.set_serving(health, SERVICES)
            lifecycle.listening(grpc=grpc_port, metrics=metrics_port)
            log.info("mixer.listening", grpc=settings.grpc_address)
            state = ""
            await lifecycle.stopping.wait()
            await health.enter_graceful_shutdown()
            await server.stop(DRAIN_S)
            for task in tasks:
                task.cancel()


async def _ready_or_stopped(policy: Policy, stopping: asyncio.Event) -> None:
    """Checks are answered only once the rules were read: before that, everything would pass."""
    waits = [asyncio.ensure_future(event.wait()) for event in (policy.ready, stopping)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


def main() -> None:
    sys.exit(run("windward-mixer", Settings, serve, description=(__doc__ or "").splitlines()[0]))


if __name__ == "__main__":
    main()
