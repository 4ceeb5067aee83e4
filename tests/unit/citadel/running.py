"""A whole Citadel in this process: real gRPC on free loopback ports, the store in memory and shared by restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.citadel import main
from services.citadel.settings import Settings
from windward.client.certificates import Enrolment
from windward.identity.names import CITADEL_ACCOUNT, CONTROL_PLANE_DNS
from windward.identity.spiffe_id import SpiffeId
from windward.process import Lifecycle
from windward.rpc.channel import ChannelSource
from windward.rpc.credentials import TlsSource
from windward.store.memory import MemoryStore

DNS = CONTROL_PLANE_DNS[CITADEL_ACCOUNT]
START_S = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    base: Path
    store: MemoryStore
    ports: dict[str, int]

    @property
    def bootstrap(self) -> Path:
        return self.base / "bootstrap"

    @property
    def roots_pem(self) -> bytes:
        return (self.bootstrap / "root-cert.pem").read_bytes()

    def address(self, port: str) -> str:
        return f"127.0.0.1:{self.ports[port]}"

    def by_tls(self) -> ChannelSource:
        return ChannelSource([self.address("tls")], server_name=DNS, roots_pem=self.roots_pem)

    def by_mtls(self, source: TlsSource) -> ChannelSource:
        return ChannelSource([self.address("mtls")], server_name=DNS, source=source)

    def enrolment(
        self, identity: SpiffeId, token: Path | str, state: str = "", ttl_s: int = 0
    ) -> Enrolment:
        """``token``: a file, or the text of one that is written here."""
        state = state or identity.service_account
        file = token if isinstance(token, Path) else self.base / f"{state}.token"
        if isinstance(token, str):
            file.write_text(token)
        return Enrolment(
            identity, self.address("tls"), self.address("mtls"), self.bootstrap / "root-cert.pem", file,
            self.base / state, ttl_s,
        )  # fmt: skip


@asynccontextmanager
async def citadel(
    base: Path, store: MemoryStore, monkeypatch: Any, **settings: Any
) -> AsyncIterator[Running]:
    """Runs until the block ends; then it has drained. A start that fails raises here."""
    monkeypatch.setattr(main, "store_at", lambda _: nullcontext(store))
    ports_file = base / "ports"
    ports_file.unlink(missing_ok=True)
    lifecycle = Lifecycle(str(ports_file))
    chosen: dict[str, Any] = {
        "kek_file": str(base / "kek"),
        "bootstrap_dir": str(base / "bootstrap"),
        "tls_address": "127.0.0.1:0",
        "mtls_address": "127.0.0.1:0",
        "metrics_address": "127.0.0.1:0",
        **settings,
    }
    serving = asyncio.create_task(main.serve(Settings(store="memory:", **chosen), lifecycle))
    try:
        async with asyncio.timeout(START_S):
            while not ports_file.exists() and not serving.done():
                await asyncio.sleep(0.01)
        if serving.done():
            await serving
        yield Running(base, store, json.loads(ports_file.read_bytes()))
    finally:
        lifecycle.stopping.set()
        async with asyncio.timeout(START_S):
            await asyncio.gather(serving, return_exceptions=True)
