"""The local mesh itself: everything started in order, watched, and stopped with nothing left behind.

    etcd -> citadel -> administrator's certificate -> join tokens -> pilot, mixer
         -> configuration applied -> agents (each with its Envoy) and applications -> context.json

Everything a mesh writes lies in its own folder; its network, if it has one, goes when it goes down. A part that dies
is started again: nothing else has to be.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from services.agent.netfilter.interception import Mode as InterceptionMode
from windward.client.context import CitadelAddresses, Context, save
from windward.identity.names import MIXER_ACCOUNT, PILOT_ACCOUNT
from windward.local import addresses, network, topology
from windward.local.addresses import Mode, Plan, free_port
from windward.local.child import Child, ChildSpec
from windward.local.control import Administrator
from windward.local.errors import LocalMeshError
from windward.local.etcd import etcd_command
from windward.local.forward import start_forwarder
from windward.local.parts import STATUS_PORT, Options, Parts, Ports, identity
from windward.local.ready import wait_http
from windward.local.topology import Topology

PREFERRED_GATEWAY_PORT = 8080
START_TIMEOUT_S = 45.0
MOST_STARTING = 8
"""Sidecars that start at one time: of many, each has its share of the machine while its time to start runs."""


class State(Enum):
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPED = "stopped"


@dataclass(slots=True)
class Part:
    """One line of the live view."""

    name: str
    what: str
    address: str = ""
    state: State = State.WAITING
    child: Child | None = None


class Mesh:
    """One local mesh. ``up`` either ends with everything ready or takes down what it started and raises."""

    def __init__(
        self,
        directory: Path,
        topology_file: Path,
        *,
        mode: Mode | None = None,
        options: Options | None = None,
        gateway_port: int = PREFERRED_GATEWAY_PORT,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.directory = directory.resolve()
        self.topology_file = topology_file
        self.topology: Topology = topology.load_topology(topology_file)
        reason = network.unavailable()
        self.mode = mode or (Mode.LOOPBACK if reason else Mode.NAMESPACES)
        self.mode_reason = reason
        if self.mode is Mode.NAMESPACES and reason:
            raise LocalMeshError(
                f"network namespaces are not possible here: {reason}; use --mode loopback"
            )
        self.options = options or Options()
        if self.mode is Mode.LOOPBACK and self.options.interception == "tproxy":
            raise LocalMeshError(
                "--interception tproxy needs network namespaces, and loopback mode intercepts nothing"
                + (f" ({reason})" if reason else "; leave out --mode loopback")
            )
        self.parts: dict[str, Part] = {}
        self.gateway_url = ""
        self._gateway_port = gateway_port
        self._on_change = on_change
        self._stack = AsyncExitStack()
        self._starting = asyncio.Semaphore(MOST_STARTING)
        self._lock: IO[str] | None = None
        self.plan: Plan = self._plan()
        self.specs: Parts
        self.administrator: Administrator

    @property
    def context_file(self) -> Path:
        return self.directory / "context.json"

    def _plan(self) -> Plan:
        identifier = addresses.mesh_id(self.directory)
        if self.mode is Mode.LOOPBACK:
            return addresses.plan_loopback(identifier, self.topology.names)
        mine = f"ww{identifier}"
        return addresses.plan_namespaces(
            identifier,
            self.topology.names,
            addresses.networks_in_use(except_link=mine),
            ipv6=self.options.ipv6,
        )

    # ---- up ---------------------------------------------------------------------------------------------------------

    async def up(self) -> None:
        """Start everything and wait until it is ready."""
        try:
            self._claim_folder()
            await self._start_network()
            self._choose_ports()
            await self._start_control_plane()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._apply_configuration())
                group.create_task(self._start_workloads())
            await self._open_gateway()
            self._write_context()
        except BaseExceptionGroup as failures:
            await self.down()
            raise _first(failures) from failures
        except BaseException:
            await self.down()
            raise

    async def down(self) -> None:
        """Stop everything: applications first, the store last. May be called at any time, also twice."""
        await self._stack.aclose()
        with suppress(FileNotFoundError):
            self.context_file.unlink()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claim_folder(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = (self.directory / "lock").open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            owner = self._lock.read().strip() or "unknown"
            self._lock = None
            raise LocalMeshError(
                f"a mesh already runs in {self.directory} (process {owner}): "
                "stop it with `windward mesh down`, or name another folder with --directory"
            ) from error
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()
        for name in ("state", "logs", "etcd"):
            shutil.rmtree(self.directory / name, ignore_errors=True)
            (self.directory / name).mkdir(mode=0o711)
        self.directory.chmod(0o711)

    async def _start_network(self) -> None:
        if self.mode is Mode.LOOPBACK:
            return
        self._stack.push_async_callback(network.tear_down, self.plan.mesh_id)
        intercepted = tuple(workload.name for workload in self.topology.workloads)
        mode: InterceptionMode = "TPROXY" if self.options.interception == "tproxy" else "REDIRECT"
        await network.bring_up(self.plan, intercepted, mode)

    def _choose_ports(self) -> None:
        control = self.plan.control_address
        loopback = ("etcd_client", "etcd_peer", "citadel_metrics", "pilot_metrics", "mixer_metrics")
        names = Ports.__dataclass_fields__
        chosen: dict[str, int] = {}
        while len(chosen) < len(names):
            name = next(name for name in names if name not in chosen)
            port = free_port("127.0.0.1" if name in loopback else control)
            if port not in chosen.values():
                chosen[name] = port
        self.specs = Parts(self.directory, self.plan, Ports(**chosen), self.options)

    async def _start_control_plane(self) -> None:
        specs, ports = self.specs, self.specs.ports
        data = self.directory / "etcd"
        command = etcd_command(data, client_port=ports.etcd_client, peer_port=ports.etcd_peer)
        etcd = ChildSpec("etcd", tuple(command), specs.log("etcd"))
        await self._start("etcd", "store", etcd, ("127.0.0.1", ports.etcd_client), path="/health")
        self._state("citadel").mkdir(parents=True, exist_ok=True, mode=0o700)
        citadel = ("127.0.0.1", ports.citadel_metrics)
        await self._start(
            "citadel",
            "identity",
            specs.citadel(),
            citadel,
            address=specs.control(ports.citadel_tls),
        )
        self.administrator = await self._stack.enter_async_context(
            Administrator(
                citadel_tls=specs.control(ports.citadel_tls),
                citadel_mtls=specs.control(ports.citadel_mtls),
                pilot=specs.control(ports.pilot_mtls),
                bootstrap=specs.trust_bundle_file.parent,
                state=self._state("admin"),
                trust_domain=self.options.trust_domain,
            )
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_service("pilot", PILOT_ACCOUNT))
            if self.options.mixer:
                group.create_task(self._start_service("mixer", MIXER_ACCOUNT))

    async def _start_service(self, name: str, account: str) -> None:
        specs, ports = self.specs, self.specs.ports
        await self._give_token(name, identity(account, trust_domain=self.options.trust_domain))
        metrics = ports.pilot_metrics if name == "pilot" else ports.mixer_metrics
        served = ports.pilot_mtls if name == "pilot" else ports.mixer_grpc
        spec = specs.pilot() if name == "pilot" else specs.mixer()
        what = "configuration" if name == "pilot" else "policy, telemetry"
        await self._start(name, what, spec, ("127.0.0.1", metrics), address=specs.control(served))

    async def _apply_configuration(self) -> None:
        files = topology.config_files(self.topology_file, self.topology)
        if files:
            await self.administrator.apply(files)

    async def _start_workloads(self) -> None:
        self._stack.push_async_callback(self._stop_workloads)
        async with asyncio.TaskGroup() as group:
            for workload in self.topology.workloads:
                group.create_task(self._start_workload(workload))
            if self.topology.gateway is not None:
                gateway = self.topology.gateway
                spec = self.specs.gateway(gateway)
                group.create_task(
                    self._start_agent(
                        gateway.name, "gateway", spec, gateway.namespace, gateway.service_account
                    )
                )

    async def _start_workload(self, workload: topology.Workload) -> None:
        app = self.specs.application(workload)
        child = Child(app)
        self.parts[app.name] = Part(app.name, "application", "", State.READY, child)
        await child.start()
        spec = self.specs.sidecar(workload)
        await self._start_agent(
            workload.name, "sidecar", spec, workload.namespace, workload.service_account
        )

    async def _start_agent(
        self, name: str, what: str, spec: ChildSpec, namespace: str, service_account: str
    ) -> None:
        who = identity(service_account, namespace, self.options.trust_domain)
        await self._give_token(name, who)
        address = self.plan.place(name).address
        async with self._starting:
            await self._start(name, what, spec, (address, STATUS_PORT), address=address)

    async def _start(
        self,
        name: str,
        what: str,
        spec: ChildSpec,
        status: tuple[str, int],
        *,
        address: str = "",
        path: str = "/healthz/ready",
    ) -> None:
        """Start one part and wait until its status address says that it is ready."""
        child = Child(spec)
        part = Part(name, what, address or f"{status[0]}:{status[1]}", State.STARTING, child)
        self.parts[name] = part
        self._on_change()
        if name not in self.topology.names:
            self._stack.push_async_callback(self._stop, part)
        await child.start()
        await wait_http(child, *status, timeout_s=START_TIMEOUT_S, path=path)
        part.state = State.READY
        self._on_change()

    async def _stop_workloads(self) -> None:
        """The gateway first, which lets what is under way end; then all others at once: nobody calls them any more."""
        gateway = self.topology.gateway.name if self.topology.gateway else ""
        others = [part for part in self.parts.values() if part.what in {"application", "sidecar"}]
        if gateway in self.parts:
            await self._stop(self.parts[gateway])
        async with asyncio.TaskGroup() as group:
            for part in others:
                group.create_task(self._stop(part))

    async def _stop(self, part: Part) -> None:
        if part.child is not None:
            await part.child.stop()
        part.state = State.STOPPED
        self._on_change()

    # ---- what is written --------------------------------------------------------------------------------------------

    def _state(self, name: str) -> Path:
        return self.specs.state(name)

    async def _give_token(self, name: str, who: str) -> None:
        """A join token of an identity, in the part's own folder."""
        folder = self._state(name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        token = await self.administrator.create_token(who)
        descriptor = os.open(
            self.specs.token_file(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
        with os.fdopen(descriptor, "w") as file:
            file.write(token)

    async def _open_gateway(self) -> None:
        gateway = self.topology.gateway
        if gateway is None:
            return
        target = (self.plan.place(gateway.name).address, gateway.port)
        for port in (self._gateway_port, 0):
            with suppress(OSError):
                server = await start_forwarder("127.0.0.1", port, target)
                self._stack.push_async_callback(_close, server)
                self.gateway_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
                return
        raise LocalMeshError("no free port on 127.0.0.1 for the gateway")

    def _write_context(self) -> None:
        specs, ports = self.specs, self.specs.ports
        admin = self._state("admin")
        save(
            Context(
                pilot=specs.control(ports.pilot_mtls),
                citadel=CitadelAddresses(
                    specs.control(ports.citadel_tls), specs.control(ports.citadel_mtls)
                ),
                trust_domain=self.options.trust_domain,
                trust_bundle_file=str(specs.trust_bundle_file.relative_to(self.directory)),
                certificate_file=str(
                    (admin / self.administrator.certificate_name).relative_to(self.directory)
                ),
                key_file=str((admin / self.administrator.key_name).relative_to(self.directory)),
                metrics={
                    "pilot": f"http://127.0.0.1:{ports.pilot_metrics}",
                    "citadel": f"http://127.0.0.1:{ports.citadel_metrics}",
                    **(
                        {"mixer": f"http://127.0.0.1:{ports.mixer_metrics}"}
                        if self.options.mixer
                        else {}
                    ),
                },
                gateway=self.gateway_url,
                mode=self.mode.value,
                workloads={place.name: place.address for place in self.plan.places},
            ),
            self.context_file,
        )


async def _close(server: asyncio.Server) -> None:
    server.close()


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first single error of a group: one clear line is what a user can use."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
