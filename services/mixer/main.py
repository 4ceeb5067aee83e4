"""windward-mixer: policy and telemetry.

    configuration feed -> compiled rules (swapped whole)      ext_authz -> attributes -> rules -> verdict
    registrations      -> who is behind an address            ALS       -> the mesh's default metrics

Drain: health says NOT_SERVING, calls under way finish, streams end, the store closes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from envoy.service.accesslog.v3 import als_pb2_grpc
from envoy.service.auth.v3 import external_auth_pb2_grpc

from services.mixer import metrics
from services.mixer.attributes.workloads import Workloads
from services.mixer.frontends.check import CheckService
from services.mixer.frontends.report import ReportService
from services.mixer.runtime.rules import RuleSet, compile_rules
from services.mixer.settings import Settings
from windward.client.certificates import CertificateKeeper, Enrolment, RefusedByCitadel
from windward.config.feed import follow_config
from windward.config.object import ConfigObject, ObjectKey
from windward.config.registry import MIXER
from windward.identity.names import MIXER_ACCOUNT, ROOT_NAMESPACE
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
    try:
        store = open_store(settings.store)
    except (ValueError, OSError) as error:
        raise FatalError(str(error)) from error
    policy, workloads = Policy(), Workloads()
    state = "waiting for a certificate from Citadel"
    host, _, port = settings.metrics_address.rpartition(":")
    routes = metrics_routes(
        metrics.REGISTRY, lambda: state or ("" if policy.ready.is_set() else "reading the store")
    )
    try:
        http = await serve_http(host, int(port), routes)
    except (OSError, ValueError) as error:
        raise FatalError(f"--metrics-address {settings.metrics_address}: {error}") from error
    keeper = CertificateKeeper(
        Enrolment(
            identity=workload_id(settings.trust_domain, ROOT_NAMESPACE, MIXER_ACCOUNT),
            tls_address=settings.citadel_address,
            mtls_address=settings.citadel_mtls_address,
            trust_bundle_file=Path(settings.trust_bundle_file),
            token_file=Path(settings.token_file),
            state_dir=Path(settings.state_dir),
        )
    )
    async with asyncio.TaskGroup() as group:
        stop = group.create_task(lifecycle.stopping.wait())
        first = group.create_task(_first(keeper))
        await asyncio.wait({stop, first}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            first.cancel()
            return
        first.result()
        tasks = [
            group.create_task(keeper.run()),
            group.create_task(policy.run(store)),
            group.create_task(workloads.run(store)),
        ]
        await _ready_or_stopped(policy, stop)
        server = servers.new_server(interceptors=[ErrorInterceptor()])
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(
            CheckService(lambda: policy.current, workloads), server
        )
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(
            ReportService(workloads, settings.trust_domain), server
        )
        health = servers.add_standard_services(server, SERVICES)
        grpc_port = servers.listen_mtls(
            server, settings.grpc_address, keeper.source, setting="--grpc-address"
        )
        await server.start()
        await servers.set_serving(health, SERVICES)
        lifecycle.listening(grpc=grpc_port, metrics=http.sockets[0].getsockname()[1])
        log.info("mixer.listening", grpc=settings.grpc_address)
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


async def _ready_or_stopped(policy: Policy, stop: asyncio.Task[bool]) -> None:
    """Checks are answered only once the rules were read: before that, everything would pass."""
    ready = asyncio.ensure_future(policy.ready.wait())
    await asyncio.wait({ready, stop}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()


def main() -> None:
    sys.exit(run("windward-mixer", Settings, serve, description=(__doc__ or "").splitlines()[0]))


if __name__ == "__main__":
    main()
