"""windward-agent: one workload's sidecar: certificate, Envoy, secrets, configuration, registration, status.

    certificate (Citadel) -> unix socket (SDS + xDS proxy) -> bootstrap -> Envoy -> registered at Pilot -> ready
    with an application (windward-agent run -- CMD): -> it is started; its end is the agent's

Drain (envoy/drain.py): deregistered first, then Envoy takes nothing new and lets the present connections end, then the
application is told to end, then everything stops.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from services.agent.application import Application, no_command, split_command
from services.agent.dns.workload import debug_routes, workload_dns
from services.agent.environment import settings_environment
from services.agent.envoy.admin import Admin
from services.agent.envoy.compose import (
    compose,
    on_loopback_too,
    override_text,
    place,
    status_listen,
)
from services.agent.envoy.drain import Drain
from services.agent.envoy.process import STDERR, STDOUT, EnvoyProcess, find_envoy
from services.agent.envoy.proxy_config import BadProxyConfig
from services.agent.folder import working_folder
from services.agent.left import LeftMark
from services.agent.registration import Registration
from services.agent.settings import Settings
from services.agent.status.readiness import Readiness
from services.agent.status.routes import status_routes
from services.agent.status.wiring import app_probes, merged_metrics
from services.agent.workload_api.sidecar import workload_api
from services.agent.xds_proxy.served import Served
from services.agent.xds_proxy.session import NameSink
from windward.client.certificates import CertificateKeeper, Enrolment
from windward.client.enrolment import enrolled
from windward.identity.names import CONTROL_PLANE_DNS, PILOT_ACCOUNT
from windward.identity.spiffe_id import SpiffeIdError, workload_id
from windward.process import FatalError, Lifecycle, run
from windward.rpc.channel import ChannelSource
from windward.rpc.http import http_at
from windward.settings import SettingsError, stated
from windward.telemetry.logging import get_logger
from windward.telemetry.metrics import new_registry

log = get_logger()
READY_POLL_S = 0.05
SIDECAR = (
    f"{(__doc__ or '').splitlines()[0]} Others, each with its --help: `windward-agent run [flags] -- CMD`: sidecar and "
    "application as one; `wait`: until the sidecar can serve; `node`: Workload API and SDS for all workloads of a node; "
    "`netfilter`: the interception rules."
)
RUN = (
    "windward-agent run [flags] -- CMD: the sidecar, and CMD once it can serve. CMD has stdin and stdout to itself; its end is "
    "the sidecar's, with its exit status; told to stop, the sidecar lets peers and connections go first, then CMD."
)


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


async def serve(
    settings: Settings, lifecycle: Lifecycle, application: Application | None = None
) -> None:
    """Run until told to stop, or until the application has ended."""
    binary = find_envoy(settings.envoy_binary)
    config, override = compose(settings, os.environ), override_text(settings)
    output = STDOUT if application is None else STDERR
    with ExitStack() as stack:
        try:
            keeper = CertificateKeeper(enrolment(settings))
            folder = stack.enter_context(working_folder(settings.state_dir))
        except (SpiffeIdError, OSError) as error:
            raise FatalError(str(error)) from error
        envoy = EnvoyProcess(settings, binary, config, override=override, output=output)
        await _serve(settings, lifecycle, keeper, envoy, application, folder)


async def _serve(
    settings: Settings,
    lifecycle: Lifecycle,
    keeper: CertificateKeeper,
    envoy: EnvoyProcess,
    application: Application | None,
    folder: Path,
) -> None:
    registry = new_registry()
    served = Served(settings, keeper, registry, folder)
    agent = _Agent(settings, lifecycle, keeper, envoy, registry, application, served)
    at = place(settings)
    routes = {
        **served.routes(),
        **status_routes(
            not_ready=agent.not_ready,
            metrics=merged_metrics(settings, at, registry).answer,
            drain=agent.drain_only,
            end=agent.end_at_once,
        ),
    }
    async with (
        workload_dns(settings, registry) as (dns, dns_port),
        http_at(
            status_listen(settings),
            {**routes, **debug_routes(dns)},
            setting="--status-address",
            otherwise=app_probes(settings, at).answer,
            loopback=on_loopback_too(settings),
        ) as port,
    ):
        lifecycle.listening(status=port, dns=dns_port)
        if await enrolled(keeper, lifecycle.stopping, served.kept):
            async with asyncio.TaskGroup() as group:
                await agent.run(group, dns.names if dns else None)


class _Agent:
    """The parts, wired."""

    def __init__(
        self,
        settings: Settings,
        lifecycle: Lifecycle,
        keeper: CertificateKeeper,
        envoy: EnvoyProcess,
        registry: CollectorRegistry,
        application: Application | None,
        served: Served,
    ) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._metrics = registry
        self._keeper = keeper
        self._envoy = envoy
        self._application = application
        self._admin = Admin(settings.admin_address)
        self._readiness = Readiness(self._admin, lambda: envoy.pid)
        self._drain = Drain(settings, self._admin, self._deregister)
        self._at_once = False
        self._started = False
        self._left = LeftMark(Path(settings.state_dir))
        self._registration: Registration | None = None
        self._registering: asyncio.Task[None] | None = None
        self._served = served
        self._hold: Callable[[], None] = lambda: None
        Gauge(
            "windward_agent_envoy_restarts",
            "How often Envoy has died and was started again",
            registry=registry,
        ).set_function(lambda: float(envoy.restarts))

    async def not_ready(self) -> str:
        if self._drain.started or self._lifecycle.stopping.is_set():
            return "draining"
        if self._keeper.problem:
            return self._keeper.problem
        if not self._started:
            return "starting"
        reason = await self._readiness.problem()
        registration = self._registration
        if reason or registration is None or registration.registered.is_set():
            return reason
        # Without a Pilot, what an earlier run was told is served all the same.
        return "" if self._served.resumed and registration.failing else registration.problem

    def drain_only(self) -> None:
        """Take no part any more, and stay: what stops the workload stops this process later."""
        self._drain.start()

    def end_at_once(self) -> None:
        self._at_once = True
        self._drain.abandon()
        self._lifecycle.stopping.set()

    async def run(self, group: asyncio.TaskGroup, names: NameSink | None) -> None:
        settings, source = self._settings, self._keeper.source
        tasks = [group.create_task(self._keeper.run())]
        async with (
            self._served.over_socket(names) as proxy,
            workload_api(settings, self._keeper, self._metrics),
        ):
            self._hold = proxy.hold
            if settings.workload_group:
                pilot_name = CONTROL_PLANE_DNS[PILOT_ACCOUNT]
                registry = ChannelSource(
                    settings.pilot_address, server_name=pilot_name, source=source
                )
                self._registration = Registration(
                    settings,
                    registry,
                    self._admin.serves_application,
                    resumed=self._left.still_known(resumed=self._served.resumed),
                )
                self._registering = group.create_task(self._registration.run())
            tasks.append(group.create_task(self._envoy.run()))
            self._started = True
            if self._application is not None:
                tasks.append(group.create_task(self._run_application(self._application)))
            await self._lifecycle.stopping.wait()
            await self._end()
            for task in tasks:
                task.cancel()
            await self._envoy.stop()

    async def _run_application(self, application: Application) -> None:
        """Start it when the sidecar can serve; its end is everybody's."""
        while await self.not_ready():
            await asyncio.sleep(READY_POLL_S)
        await application.run()
        self._lifecycle.stopping.set()

    async def _end(self) -> None:
        """What a request still needs goes last: peers are told, connections end, then the application, then Envoy."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_time
        application = self._application
        finished = application is not None and application.ended.is_set()
        if self._at_once or finished or self._drain.started:
            # Drained before, or nobody is left who could answer: only peers must know.
            await self._deregister()
        else:
            await self._drain.run()
        if application is not None:
            await application.stop(deadline - loop.time())

    async def _deregister(self) -> bool:
        """Out of every proxy's endpoints; whether the workload was among them."""
        if self._registration is None or self._registering is None:
            return False
        self._hold()
        registering, self._registering = self._registering, None
        registering.cancel()
        await asyncio.gather(registering, return_exceptions=True)
        if await self._registration.end():
            self._left.set()
        return self._registration.registered.is_set()


def main(argv: Sequence[str] | None = None) -> int:
    """``windward-agent [run] [flags] [-- CMD]``; the exit status, an application's own when there is one."""
    words = sys.argv[1:] if argv is None else list(argv)
    application: Application | None = None
    running = words[:1] == ["run"]
    if running:
        words, command = split_command(words[1:])
        if not command and not {"--help", "--version", "--print-config"} & set(words):
            return no_command()
        application = Application(command)
    try:
        flag, file = stated("windward-agent", words, "proxy_config")
        processors = os.cpu_count() or 1
        os.environ.update(settings_environment(os.environ, processors, flag=flag, file=file))
    except (BadProxyConfig, SettingsError) as error:
        sys.stderr.write(f"windward-agent: {error}\n")
        return 2

    async def serving(settings: Settings, lifecycle: Lifecycle) -> None:
        await serve(settings, lifecycle, application)

    status = run(
        "windward-agent", Settings, serving, description=RUN if running else SIDECAR, argv=words
    )
    return application.status if application is not None and not status else status


if __name__ == "__main__":
    sys.exit(main())
