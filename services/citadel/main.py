"""windward-citadel: the mesh's certificate authority.

    store -> root and JWT keys (made or unsealed) -> own certificate -> ports 8060 (TLS, tokens) and 8061 (mTLS, certificates)
          -> bootstrap folder: root-cert.pem for everyone, admin.token for the administrator

Drain: health says NOT_SERVING, streams end, calls under way finish, the store closes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import grpc

from services.citadel import metrics
from services.citadel.api.certificates import CertificateService
from services.citadel.api.trust import TrustService
from services.citadel.authn import tokens
from services.citadel.authority.jwt import JwtPolicy
from services.citadel.authority.jwt_keys import JwtKeys
from services.citadel.authority.root import Root, load_or_create
from services.citadel.authority.sealing import SealingError, load_or_make_key
from services.citadel.authority.signing import Policy, issue
from services.citadel.settings import Settings
from windward.api.istio.v1.auth import ca_pb2_grpc
from windward.api.trust.v1 import trust_pb2_grpc
from windward.descriptors import make_room
from windward.identity.certificate import CertificateError
from windward.identity.csr import new_csr
from windward.identity.keys import key_pem, new_key
from windward.identity.names import ADMIN_ACCOUNT, CITADEL_ACCOUNT, ROOT_NAMESPACE
from windward.identity.spiffe_id import SpiffeIdError, check_trust_domain, workload_id
from windward.process import FatalError, Lifecycle, run
from windward.rpc import server as servers
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.rpc.errors import ErrorInterceptor
from windward.rpc.http import http_at
from windward.store.errors import StoreError, Unavailable
from windward.store.open import store_at
from windward.store.protocol import Store
from windward.telemetry.logging import get_logger
from windward.telemetry.metrics import metrics_routes

log = get_logger()
SERVICES = ("istio.v1.auth.IstioCertificateService", "windward.trust.v1.TrustService")
OWN_TTL_S = 86_400
ADMIN_TOKEN_TTL_S = 86_400
RETRY_S = 1.0
DRAIN_S = 5.0
T = TypeVar("T")


async def serve(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run until told to stop."""
    make_room()
    try:
        check_trust_domain(settings.trust_domain)
        key = load_or_make_key(Path(settings.kek_file))
    except (SealingError, SpiffeIdError, ValueError, OSError) as error:
        raise FatalError(str(error)) from error
    state = "waiting for the store"
    routes = metrics_routes(metrics.REGISTRY, lambda: state)
    async with (
        store_at(settings.store) as store,
        http_at(settings.metrics_address, routes, setting="--metrics-address") as metrics_port,
    ):
        root = await _root(settings, store, key, lifecycle)
        jwt_keys = JwtKeys(store, key, _jwt_policy(settings), _now)
        if root is None or not await _loaded(settings, jwt_keys, lifecycle):
            return
        metrics.ROOT_EXPIRY.set(root.issuer.certificate.not_valid_after_utc.timestamp())
        own = TlsSource(_own_material(root, settings.trust_domain))
        server = _server(settings, lifecycle, store, root, jwt_keys)
        health = servers.add_standard_services(server, SERVICES)
        tls = servers.listen_tls(server, settings.tls_address, own, setting="--tls-address")
        mtls = servers.listen_mtls(server, settings.mtls_address, own, setting="--mtls-address")
        await server.start()
        await servers.set_serving(health, SERVICES)
        await _write_bootstrap(settings, store, root)
        lifecycle.listening(tls=tls, mtls=mtls, metrics=metrics_port)
        log.info("citadel.ready", tls=settings.tls_address, mtls=settings.mtls_address)
        state = ""
        async with asyncio.TaskGroup() as group:
            renewal = group.create_task(_renew(own, root, settings.trust_domain))
            rotation = group.create_task(jwt_keys.run())
            await lifecycle.stopping.wait()
            renewal.cancel()
            rotation.cancel()
        await health.enter_graceful_shutdown()
        await server.stop(DRAIN_S)


def _server(
    settings: Settings, lifecycle: Lifecycle, store: Store, root: Root, jwt_keys: JwtKeys
) -> grpc.aio.Server:
    """Every service of Citadel's own, on no port yet."""
    policy = Policy(settings.default_ttl, settings.max_ttl, settings.csr_mode == "strict")
    server = servers.new_server(interceptors=[ErrorInterceptor()])
    ca_pb2_grpc.add_IstioCertificateServiceServicer_to_server(
        CertificateService(store, root, policy, settings.trust_domain, _now), server
    )
    trust_pb2_grpc.add_TrustServiceServicer_to_server(
        TrustService(store, root, jwt_keys, settings.trust_domain, lifecycle.stopping), server
    )
    return server


async def _root(settings: Settings, store: Store, key: bytes, lifecycle: Lifecycle) -> Root | None:
    """The root, waiting for the store as long as it takes; None when told to stop meanwhile."""

    async def load() -> Root:
        return await load_or_create(store, key, settings.trust_domain, settings.root_ttl, _now)

    return await _from_store(settings, lifecycle, load)


async def _loaded(settings: Settings, jwt_keys: JwtKeys, lifecycle: Lifecycle) -> bool:
    """Whether the JWT keys are there; False when told to stop before."""

    async def load() -> bool:
        await jwt_keys.refresh()
        return True

    return bool(await _from_store(settings, lifecycle, load))


async def _from_store(
    settings: Settings, lifecycle: Lifecycle, load: Callable[[], Awaitable[T]]
) -> T | None:
    while not lifecycle.stopping.is_set():
        try:
            return await load()
        except (SealingError, CertificateError) as error:
            raise FatalError(str(error)) from error
        except Unavailable as error:
            log.warning("citadel.waiting", reason=str(error))
        except StoreError as error:
            raise FatalError(f"--store {settings.store}: {error}") from error
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_S):
                await lifecycle.stopping.wait()
    return None


def _jwt_policy(settings: Settings) -> JwtPolicy:
    return JwtPolicy(
        settings.jwt_default_ttl,
        settings.jwt_max_ttl,
        settings.jwt_key_rotation,
        settings.jwt_key_announce,
    )


def _own_material(root: Root, trust_domain: str) -> TlsMaterial:
    """Citadel certifies itself."""
    identity = workload_id(trust_domain, ROOT_NAMESPACE, CITADEL_ACCOUNT)
    key = new_key()
    policy = Policy(OWN_TTL_S, OWN_TTL_S, strict=True)
    issued = issue(root, policy, identity, new_csr(key, identity), 0, _now())
    return TlsMaterial("".join(issued.chain[:-1]).encode(), key_pem(key), root.pem)


async def _renew(own: TlsSource, root: Root, trust_domain: str) -> None:
    while True:
        await asyncio.sleep(OWN_TTL_S / 2)
        own.replace(_own_material(root, trust_domain))


async def _write_bootstrap(settings: Settings, store: Store, root: Root) -> None:
    """The root for everyone, and a token for the administrator unless a usable one is there already."""
    if not settings.bootstrap_dir:
        return
    folder = Path(settings.bootstrap_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        _write(folder / "root-cert.pem", root.pem, 0o644)
        path = folder / "admin.token"
        if path.exists() and await tokens.usable(store, path.read_text().strip()):
            return
        identity = workload_id(settings.trust_domain, ROOT_NAMESPACE, ADMIN_ACCOUNT)
        token = await tokens.create(store, identity, ADMIN_TOKEN_TTL_S, 1)
        _write(path, token.secret.encode(), 0o600)
    except OSError as error:
        raise FatalError(f"--bootstrap-dir {folder}: {error}") from error


def _write(path: Path, content: bytes, mode: int) -> None:
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def _now() -> datetime:
    return datetime.now(UTC)


def main() -> None:
    sys.exit(run("windward-citadel", Settings, serve, description=(__doc__ or "").splitlines()[0]))


if __name__ == "__main__":
    main()
