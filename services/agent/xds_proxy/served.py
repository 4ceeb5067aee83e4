"""All that Envoy is served over its socket, and what stands behind it on disk, as one part of the agent.

last good state on disk ──> cache ──> xDS ─┐
certificate (kept there too) ──> secrets ──┴─> unix socket, in a folder that only Envoy's user may enter
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.agent.envoy.bootstrap import SOCKET
from services.agent.envoy.compose import node_id
from services.agent.sds.server import SecretServer
from services.agent.sds.store import SecretStore
from services.agent.settings import Settings
from services.agent.xds_proxy.cache import Cache
from services.agent.xds_proxy.disk import LastGood
from services.agent.xds_proxy.last_good import Owner, State
from services.agent.xds_proxy.metrics import AgentState
from services.agent.xds_proxy.pilots import in_random_order
from services.agent.xds_proxy.proxy import XdsProxy
from services.agent.xds_proxy.session import NameSink
from services.agent.xds_proxy.wire import body_of
from windward.client.certificates import CertificateKeeper
from windward.identity.names import CONTROL_PLANE_DNS, PILOT_ACCOUNT
from windward.process import FatalError
from windward.rpc import server as servers
from windward.rpc.channel import ChannelSource
from windward.rpc.credentials import TlsMaterial
from windward.rpc.errors import ErrorInterceptor
from windward.rpc.http import Routes
from windward.telemetry.logging import get_logger
from windward.xds.resource import NAME_TABLE

log = get_logger()


class Served:
    """``kept`` is for the keeper's first certificate; ``over_socket`` needs the keeper to have one."""

    def __init__(
        self,
        settings: Settings,
        keeper: CertificateKeeper,
        registry: CollectorRegistry,
        folder: Path,
    ) -> None:
        """Reads the state on disk, in ``folder``; the socket is made in the current one."""
        self._settings = settings
        self._keeper = keeper
        owner = Owner(str(keeper.identity), node_id(settings))
        self._last_good = LastGood(folder, owner)
        self._state: State | None = self._last_good.load()
        self._told = AgentState(keeper, self._last_good)
        self._told.register(registry)

    @property
    def kept(self) -> TlsMaterial | None:
        """The certificate of an earlier run, yet to be checked."""
        return self._state.material if self._state else None

    @property
    def resumed(self) -> bool:
        """Whether an earlier run's configuration is served."""
        return self._last_good.loaded

    def routes(self) -> Routes:
        return self._told.routes()

    @asynccontextmanager
    async def over_socket(self, names: NameSink | None) -> AsyncIterator[XdsProxy]:
        """Serve while the block lasts. ``names`` takes name tables; without it they are not asked for."""
        state, source = self._state, self._keeper.source
        cache = Cache(state.types, state.revision) if state else Cache()
        if names is not None and state is not None:
            held = cache.of(NAME_TABLE).resources
            names({name: body_of(item.entry) for name, item in held.items()}, ())
        pilots = in_random_order(self._settings.pilot_address, random.Random())  # noqa: S311  no secret
        pilot_name = CONTROL_PLANE_DNS[PILOT_ACCOUNT]
        channels = ChannelSource(pilots, server_name=pilot_name, source=source)
        proxy = self._told.proxy = XdsProxy(channels, cache, names=names)
        server = servers.new_server(interceptors=[ErrorInterceptor()])
        secrets = SecretStore(source)
        serving = self._told.secrets = SecretServer(secrets)
        server.add_generic_rpc_handlers((serving.handlers(), proxy.handlers()))
        self._open_folder(Path(SOCKET))
        servers.listen_plaintext(server, f"unix:{SOCKET}", setting="--state-dir")
        self._own(Path(SOCKET), 0o600)
        await server.start()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(secrets.run()),
                    group.create_task(self._last_good.keep(cache, source, proxy.live_until)),
                ]
                yield proxy
                for task in tasks:
                    task.cancel()
        finally:
            await self._last_good.finish(cache, source, proxy.live_until())
            await server.stop(0.5)
            await channels.close()

    def _open_folder(self, socket: Path) -> None:
        """Secrets come out of the socket: its folder is there, and closed to others, before the socket is."""
        try:
            socket.parent.mkdir(mode=0o700, exist_ok=True)
            self._own(socket.parent, 0o700)
            socket.unlink(missing_ok=True)
        except OSError as error:
            raise FatalError(
                f"--state-dir {self._settings.state_dir}: {socket}: {error.strerror}: the agent needs a folder "
                "that it can write for Envoy's socket"
            ) from error

    def _own(self, path: Path, mode: int) -> None:
        """Give it to Envoy's user, and to nobody else."""
        path.chmod(mode)
        if os.geteuid() == 0 and self._settings.interception == "redirect":
            os.chown(path, self._settings.proxy_uid, self._settings.proxy_uid)
