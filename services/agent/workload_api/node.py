"""``windward-agent node``: one agent a node; the SPIFFE Workload API and SDS for all workloads there, each its own.

    file of entries ──> identity: a key, a certificate and a private socket of its own, first by its own join token
    socket ──> who connects? (kernel) ──> the narrowest entry that matches ──> that identity, or a refusal

The agent itself has no identity: it holds a token for each workload that it serves and can become nobody else. An
identity that Citadel refuses, or cannot give yet, keeps no other one waiting.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from prometheus_client import CollectorRegistry

from services.agent.sds.server import SecretServer
from services.agent.sds.store import SecretStore
from services.agent.workload_api.acceptor import DESCRIPTORS_OF_NODE, OF_NODE, Acceptor, Destination
from services.agent.workload_api.entries import EntriesError, Entry, load_entries, match
from services.agent.workload_api.identity import (
    NOBODY,
    open_private_folder,
    serving_identity,
    serving_nobody,
)
from services.agent.workload_api.peer import Peer
from windward.client.certificates import CertificateKeeper, Enrolment, RefusedByCitadel
from windward.descriptors import make_room
from windward.identity.names import TRUST_DOMAIN
from windward.identity.spiffe_id import SpiffeId, SpiffeIdError, check_trust_domain
from windward.process import FatalError, Lifecycle, ProcessSettings, run
from windward.rpc.credentials import TlsSource
from windward.rpc.http import http_at
from windward.settings import Seconds
from windward.telemetry.logging import get_logger
from windward.telemetry.metrics import metrics_routes, new_registry

log = get_logger()
REFUSED_RETRY_S = 10.0
"""A refused token is read again then: a new one may have been put there."""


class Settings(ProcessSettings, frozen=True, kw_only=True):
    entries_file: Annotated[
        str, Meta(description="which process is which workload; JSON, YAML or TOML")
    ]
    citadel_address: Annotated[str, Meta(description="Citadel for callers with a token")]
    citadel_mtls_address: Annotated[str, Meta(description="Citadel for callers with a certificate")]
    trust_bundle_file: Annotated[
        str, Meta(description="PEM of the root that Citadel must chain to")
    ]
    state_dir: Annotated[str, Meta(description="where certificates and keys are kept (0700)")]
    workload_api_socket: Annotated[
        str, Meta(description="unix socket of the Workload API and of SDS; open to all users")
    ] = "/run/windward/workload-api.sock"
    trust_domain: Annotated[str, Meta(description="the mesh's trust domain")] = TRUST_DOMAIN
    certificate_ttl: Annotated[
        Seconds, Meta(description="lifetime to ask for; 0: Citadel's default")
    ] = Seconds(0)
    status_address: Annotated[str, Meta(description="readiness and metrics; HTTP")] = (
        "127.0.0.1:15020"
    )


class Node:
    """The identities of a node, and who is which."""

    def __init__(self, settings: Settings, entries: Sequence[Entry], folder: Path) -> None:
        """``folder``: of private sockets."""
        self._settings = settings
        self._entries = tuple(entries)
        self._folder = folder
        owners = {entry.identity(settings.trust_domain): entry for entry in entries}
        self._identities = [
            _Identity(settings, identity, entry, folder / f"{at}.sock")
            for at, (identity, entry) in enumerate(owners.items())
        ]
        self._of = {identity.enrolment.identity: identity for identity in self._identities}
        self._nobody = Destination(str(folder / NOBODY), known=False)

    def decide(self, peer: Peer) -> Destination:
        entry = match(self._entries, peer)
        if entry is None:
            return self._nobody
        return self._of[entry.identity(self._settings.trust_domain)].destination

    def not_ready(self) -> str:
        """Who is still without a certificate, and why; empty when nobody is."""
        waiting = [f"{each.enrolment.identity}: {each.problem}" for each in self._identities]
        return "; ".join(line for line in waiting if not line.endswith(": "))

    @asynccontextmanager
    async def serving(self, registry: CollectorRegistry) -> AsyncIterator[None]:
        path = Path(self._settings.workload_api_socket.removeprefix("unix://"))
        acceptor = Acceptor(path, self.decide, registry, OF_NODE)
        async with asyncio.TaskGroup() as group, serving_nobody(Path(self._nobody.private)):
            tasks = [group.create_task(each.run()) for each in self._identities]
            async with acceptor.serving():
                yield
            for task in tasks:
                task.cancel()


class _OwnSecrets(SecretStore):
    """Certificate and roots, and no files: this agent may read what the workload that names them may not."""

    def want(self, _: Iterable[str]) -> None:
        return


class _Identity:
    """One identity's life: its first certificate, then serving and renewing."""

    def __init__(self, settings: Settings, identity: SpiffeId, entry: Entry, socket: Path) -> None:
        state = Path(settings.state_dir) / "identities" / entry.namespace / entry.service_account
        self.enrolment = Enrolment(
            identity=identity,
            tls_address=settings.citadel_address,
            mtls_address=settings.citadel_mtls_address,
            trust_bundle_file=Path(settings.trust_bundle_file),
            token_file=Path(entry.token_file),
            state_dir=state,
            ttl_s=int(settings.certificate_ttl),
        )
        self.destination = Destination(str(socket), known=True)
        self._keeper = CertificateKeeper(self.enrolment)
        self._refused = ""
        self._hint = entry.hint

    @property
    def problem(self) -> str:
        return self._refused or self._keeper.problem

    async def run(self) -> None:
        socket = Path(self.destination.private)
        source = await self._first()
        secrets = _OwnSecrets(source, mounts={})
        async with (
            serving_identity(
                self.enrolment.mtls_address,
                self._keeper,
                source,
                socket,
                hint=self._hint,
                more=(SecretServer(secrets).handlers(),),
            ),
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self._keeper.run())
            group.create_task(secrets.run())
            log.info("workload_api.identity_served", identity=str(self.enrolment.identity))

    async def _first(self) -> TlsSource:
        while True:
            try:
                _check_token_file(self.enrolment.token_file)
                source = await self._keeper.first()
                self._refused = ""
                return source
            except (RefusedByCitadel, EntriesError) as error:
                self._refused = str(error)
                identity = str(self.enrolment.identity)
                log.warning("workload_api.identity_refused", identity=identity, reason=str(error))
            await asyncio.sleep(REFUSED_RETRY_S * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret


def _check_token_file(file: Path) -> None:
    """Raises EntriesError for a token that others may read. One that is missing may not be needed any more."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return
    if mode & 0o077:
        raise EntriesError(
            f"{file}: readable by others, who might become its identity; chmod 600 it"
        )


async def serve(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run until told to stop."""
    try:
        check_trust_domain(settings.trust_domain)
        entries = load_entries(Path(settings.entries_file), settings.trust_domain)
    except (EntriesError, SpiffeIdError) as error:
        raise FatalError(f"--entries-file {error}") from error
    folder = Path(settings.state_dir) / "workload-api"
    open_private_folder(folder)
    _warn_of_rights(entries)
    make_room(DESCRIPTORS_OF_NODE)
    node, registry = Node(settings, entries, folder), new_registry()
    routes = metrics_routes(registry, node.not_ready)
    async with (
        http_at(settings.status_address, routes, setting="--status-address") as port,
        node.serving(registry),
    ):
        lifecycle.listening(status=port)
        log.info("workload_api.serving", socket=settings.workload_api_socket, entries=len(entries))
        await lifecycle.stopping.wait()


def _warn_of_rights(entries: Sequence[Entry]) -> None:
    """Only root may ask what processes of other users run; without it such entries match nobody."""
    blind = [entry for entry in entries if entry.path and os.geteuid() not in {0, entry.uid}]
    if blind:
        log.warning("workload_api.paths_not_visible", entries=len(blind), mend="run as root")


def main(argv: Sequence[str]) -> int:
    """``windward-agent node [flags]``; the exit status."""
    description = (__doc__ or "").splitlines()[0]
    return run("windward-agent", Settings, serve, description=description, argv=argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
