"""One identity, served: its certificate, its tokens and the trust domain's keys, on a private socket.

Private: in a folder that only the agent's user may enter, so nobody comes past the acceptor that attests. The key set that
was told last lies there too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from services.agent.workload_api.acceptor import PATH_LIMIT_BYTES
from services.agent.workload_api.jwt import JwtKeySet, JwtSvids, follow_keys, minting
from services.agent.workload_api.service import Held, NobodysApi, WorkloadApi
from windward.client.certificates import CertificateKeeper
from windward.identity.names import CITADEL_ACCOUNT, CONTROL_PLANE_DNS
from windward.process import FatalError
from windward.rpc import server as servers
from windward.rpc.channel import ChannelSource
from windward.rpc.credentials import TlsSource
from windward.rpc.errors import ErrorInterceptor

OPTIONS = (
    ("grpc.max_concurrent_streams", 32),
    ("grpc.max_receive_message_length", 64 * 1024),
)
"""Of one connection. A request is an audience and a token at most."""
NOBODYS_OPTIONS = (
    ("grpc.max_concurrent_streams", 4),
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.max_connection_age_ms", 10_000),
    ("grpc.max_connection_age_grace_ms", 1_000),
)
NOBODY = "nobody.sock"


def open_private_folder(folder: Path) -> None:
    """Made, 0700, and empty of earlier sockets. Raises FatalError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        for left in folder.glob("*.sock"):
            left.unlink()
    except OSError as error:
        raise FatalError(f"--state-dir: {folder}: {error.strerror}") from error


@asynccontextmanager
async def serving_identity(
    citadel_mtls_address: str,
    keeper: CertificateKeeper,
    source: TlsSource,
    socket: Path,
    *,
    hint: str = "",
    more: Sequence[grpc.GenericRpcHandler] = (),
) -> AsyncIterator[None]:
    """Serve while the block lasts. ``more``: handlers that the same workload may call there, such as SDS."""
    channels = ChannelSource(
        [citadel_mtls_address], server_name=CONTROL_PLANE_DNS[CITADEL_ACCOUNT], source=source
    )
    kept = socket.with_name(f"{keeper.identity.trust_domain}.jwks")
    tokens, keys = JwtSvids(minting(channels)), JwtKeySet(kept)
    held = Held(
        keeper.identity,
        source,
        lambda: keeper.condition,
        lambda: keeper.problem,
        tokens,
        keys,
        hint,
    )
    following = asyncio.create_task(follow_keys(channels, keys))
    try:
        async with _server(socket, (WorkloadApi(held).handlers(), *more), OPTIONS):
            yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await tokens.close()
        await channels.close()


@asynccontextmanager
async def serving_nobody(socket: Path) -> AsyncIterator[None]:
    """Serve refusals while the block lasts."""
    async with _server(socket, (NobodysApi(),), NOBODYS_OPTIONS):
        yield


@asynccontextmanager
async def _server(
    socket: Path,
    handlers: Sequence[grpc.GenericRpcHandler],
    options: Sequence[tuple[str, int]],
) -> AsyncIterator[None]:
    if len(str(socket)) > PATH_LIMIT_BYTES:
        raise FatalError(
            f"--state-dir: {socket} is too long for a unix socket; choose a shorter one"
        )
    server = servers.new_server(interceptors=[ErrorInterceptor()], options=options)
    server.add_generic_rpc_handlers(tuple(handlers))
    servers.listen_plaintext(server, f"unix:{socket}", setting="--state-dir")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0.2)
