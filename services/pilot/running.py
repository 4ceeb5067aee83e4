"""One running Pilot, put together: its APIs on gRPC, its pages on HTTP, and what its sibling workers ask it."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from services.pilot import metrics
from services.pilot.admin.doorkeeper import Doorkeeper, token_of
from services.pilot.admin.observed import Observed
from services.pilot.admin.routes import debug_routes
from services.pilot.admin.service import AdminService
from services.pilot.admin.views import read
from services.pilot.api.access import Access, Everybody
from services.pilot.api.config import ConfigService
from services.pilot.api.progress import Progress
from services.pilot.api.registry import RegistryService
from services.pilot.blame.judge import Judge
from services.pilot.index import Index
from services.pilot.settings import Settings
from services.pilot.siblings import Siblings
from services.pilot.xds.server import DiscoveryServer
from windward.api.admin.v1 import admin_pb2_grpc
from windward.api.config.v1 import config_pb2_grpc
from windward.api.registry.v1 import registry_pb2_grpc
from windward.rpc import server as servers
from windward.rpc.errors import ErrorInterceptor
from windward.rpc.http import Request, Response, Routes
from windward.rpc.http2.server import Http2Server
from windward.store.protocol import Store
from windward.telemetry.metrics import metrics_routes


class Running:
    def __init__(
        self,
        settings: Settings,
        store: Store,
        siblings: Siblings,
        index: Index,
        discovery: DiscoveryServer,
        judge: Judge,
        address: str,
    ) -> None:
        """``address``: where it is reached, as people and other Pilots are told."""
        self._settings = settings
        self._store = store
        self._siblings = siblings
        self._index = index
        self._access = Access(settings.trust_domain)
        self._progress = Progress(index.pushes, judge)
        self._connected = discovery.connected
        self._name = address + (f"#{siblings.number}" if settings.worker else "")
        observed = Observed(
            self._name,
            lambda: index.snapshot,
            index.lease,
            index.pushes,
            index.groups,
            discovery.connected,
            judge,
        )
        self._own = partial(read, observed)
        self.waiting = "waiting for a certificate from Citadel"
        """Why nothing is served yet; empty when it is."""

    def routes(self) -> Routes:
        """Of the metrics port."""
        settings = self._settings
        token = token_of(settings.admin_token_file)
        door = Doorkeeper(self._access, token, settings.admin_open_on_loopback)

        async def scrape(_: Request) -> Response:
            text = await self._siblings.metrics(generate_latest(metrics.REGISTRY))
            return Response(200, text, CONTENT_TYPE_LATEST)

        return {
            **metrics_routes(metrics.REGISTRY, self._not_ready),
            ("GET", "/metrics"): scrape,
            **debug_routes(self._name, self._siblings.reader(self._own), door),
        }

    def _not_ready(self) -> str:
        return self.waiting or ("" if self._index.ready.is_set() else "reading the store")

    def server(self) -> Http2Server:
        """Every service of Pilot's own but ADS, on no port yet."""
        made: Any = Http2Server(shared=bool(self._settings.worker))
        config = ConfigService(
            self._store,
            self._access,
            self._connected,
            self._name,
            self._progress,
            self._siblings,
        )
        config_pb2_grpc.add_ConfigServiceServicer_to_server(config, made)
        admin = AdminService(
            self._siblings.reader(self._own),
            self._access,
            partial(generate_latest, metrics.REGISTRY),
            str(self._siblings.number),
            self._siblings.reader(self._own, alone=True),
        )
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, made)
        registry = RegistryService(self._store, self._access, self._settings.endpoint_ttl)
        registry_pb2_grpc.add_RegistryServiceServicer_to_server(registry, made)
        server: Http2Server = made
        return server

    def server_beside(self) -> grpc.aio.Server:
        """For the other workers: what this one alone knows. On no port when there are none."""
        made, everybody = servers.new_server(interceptors=[ErrorInterceptor()]), Everybody()
        config = ConfigService(self._store, everybody, self._connected, self._name, self._progress)
        config_pb2_grpc.add_ConfigServiceServicer_to_server(config, made)
        admin = AdminService(
            self._own,
            everybody,
            partial(generate_latest, metrics.REGISTRY),
            str(self._siblings.number),
        )
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, made)
        if self._siblings.address:
            servers.listen_plaintext(made, self._siblings.claim(), setting="--worker")
        return made
