"""The Workload API beside one workload: one identity, for the users that the settings name."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from services.agent.settings import Settings
from windward.client.certificates import CertificateKeeper
from windward.process import FatalError
from windward.telemetry.logging import get_logger

if TYPE_CHECKING:
    from services.agent.workload_api.peer import Peer

log = get_logger()
FOLDER = Path("workload-api")
"""Below the state folder, which is the current one."""


@asynccontextmanager
async def workload_api(
    settings: Settings,
    keeper: CertificateKeeper,
    registry: CollectorRegistry,
    folder: Path = FOLDER,
) -> AsyncIterator[None]:
    """Serve while the block lasts; nothing without a socket. An application that the agent starts finds it."""
    socket = settings.workload_api_socket
    if not socket:
        yield
        return
    # Here, because most agents do not serve it.
    from services.agent.workload_api.acceptor import Acceptor, Destination
    from services.agent.workload_api.identity import (
        NOBODY,
        open_private_folder,
        serving_identity,
        serving_nobody,
    )

    path = Path(socket.removeprefix("unix://"))
    if not path.is_absolute():
        raise FatalError(f"--workload-api-socket {socket}: must be an absolute path")
    os.environ["SPIFFE_ENDPOINT_SOCKET"] = f"unix://{path}"
    allowed = frozenset(settings.workload_api_uids or {os.geteuid()})
    open_private_folder(folder)
    known = Destination(str(folder / "identity.sock"), known=True)
    unknown = Destination(str(folder / NOBODY), known=False)

    def decide(peer: Peer) -> Destination:
        return known if peer.uid in allowed else unknown

    acceptor = Acceptor(path, decide, registry)
    async with (
        serving_identity(settings.citadel_mtls_address, keeper, keeper.source, Path(known.private)),
        serving_nobody(Path(unknown.private)),
        acceptor.serving(),
    ):
        log.info("workload_api.serving", socket=socket, uids=sorted(allowed))
        yield
