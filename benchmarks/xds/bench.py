"""The servers under measurement: a real etcd, a real Citadel, a real Pilot, in a folder of the run.

store -> root, made by Citadel's own code -> citadel takes it -> pilot finds its certificate where it keeps it
pilot on the first core, everything else on the others, where there are two; with workers, all of it on all of them
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Self

from benchmarks.fleet.identities import Member, certificate, write_identities, write_secret
from benchmarks.fleet.process import Fleet
from services.citadel.authority.root import Root, load_or_create
from services.citadel.authority.sealing import load_or_make_key
from windward.client.certificates import CERTIFICATE_FILE, KEY_FILE, ROOTS_FILE
from windward.identity.names import CONTROL_PLANE_DNS, PILOT_ACCOUNT, ROOT_NAMESPACE, TRUST_DOMAIN
from windward.local.addresses import free_port
from windward.local.child import Child, ChildSpec
from windward.local.etcd import EtcdProcess
from windward.local.ready import wait_http
from windward.store.open import open_store
from windward.store.protocol import Store

ROOT_TTL_S = 86_400 * 7.0
READY_S = 120.0
NO_FLAGS: Mapping[str, str] = {}
OURS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores are whose; empty where there is only one."""

    pilot: tuple[int, ...] = ()
    others: tuple[int, ...] = ()

    @classmethod
    def of_machine(cls) -> Cores:
        cores = sorted(os.sched_getaffinity(0))
        return cls((cores[0],), tuple(cores[1:])) if len(cores) > 1 else cls()

    def prefix(self, cores: Sequence[int]) -> tuple[str, ...]:
        return ("taskset", "-c", ",".join(map(str, cores))) if cores else ()


def split_identity(both: bytes, roots: bytes) -> tuple[tuple[str, bytes], ...]:
    """(file, content) as a CertificateKeeper keeps them, of a certificate and its key in one text."""
    leaf, mark, key = both.partition(b"-----BEGIN PRIVATE KEY-----")
    return (CERTIFICATE_FILE, leaf), (KEY_FILE, mark + key), (ROOTS_FILE, roots)


class Bench:
    """Use as an async context manager; ``start_pilot`` once the store is loaded."""

    store: Store
    root: Root
    pilot: Child

    def __init__(self, *, checkout: Path = OURS, flags: Sequence[str] = ()) -> None:
        self.cores = Cores() if "--workers" in flags else Cores.of_machine()
        self._checkout = checkout
        self._flags = tuple(flags)
        self._exits = AsyncExitStack()
        self._affinity = os.sched_getaffinity(0)
        self._others = 0
        self.ports = {
            name: free_port("127.0.0.1")
            for name in (
                "mtls", "plaintext", "metrics", "citadel_tls", "citadel_mtls", "citadel_metrics"
            )
        }  # fmt: skip

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.folder = Path(
                stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="ww-bench-", ignore_cleanup_errors=True)
                )
            )
            if self.cores.others:
                os.sched_setaffinity(0, self.cores.others)
                stack.callback(os.sched_setaffinity, 0, self._affinity)
            self.etcd = EtcdProcess(self.folder / "etcd")
            await self.etcd.start()
            stack.push_async_callback(self.etcd.stop)
            self.store = open_store(self.etcd.url)
            stack.push_async_callback(self.store.close)
            await self._make_root()
            citadel = Child(self._citadel())
            await citadel.start()
            stack.push_async_callback(citadel.stop)
            await wait_http(citadel, "127.0.0.1", self.ports["citadel_metrics"], timeout_s=READY_S)
            self._exits = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    async def _make_root(self) -> None:
        kek = load_or_make_key(self.folder / "kek")
        self.root = await load_or_create(
            self.store, kek, TRUST_DOMAIN, ROOT_TTL_S, lambda: datetime.now(UTC)
        )
        self.roots_file = self.folder / "roots.pem"
        self.roots_file.write_bytes(self.root.pem)
        self._enrol_pilot("pilot")

    def _enrol_pilot(self, name: str) -> None:
        """Put a certificate where it keeps its own."""
        state = self.folder / name
        state.mkdir(mode=0o700)
        names = (CONTROL_PLANE_DNS[PILOT_ACCOUNT],)
        both = certificate(self.root, TRUST_DOMAIN, ROOT_NAMESPACE, PILOT_ACCOUNT, names)
        for file, content in split_identity(both, self.root.pem):
            write_secret(state / file, content)

    # ---- processes --------------------------------------------------------------------------------------------------

    def _citadel(self) -> ChildSpec:
        flags = {
            "--store": self.etcd.url,
            "--tls-address": self.at("citadel_tls"),
            "--mtls-address": self.at("citadel_mtls"),
            "--metrics-address": self.at("citadel_metrics"),
            "--kek-file": str(self.folder / "kek"),
            "--log-level": "warning",
        }
        return self.service("citadel", flags, cores=self.cores.others)

    def _pilot(self) -> ChildSpec:
        flags = self._flags_of_pilot("pilot")
        return self.service("pilot", flags, checkout=self._checkout, cores=self.cores.pilot)

    def _flags_of_pilot(self, name: str) -> dict[str, str]:
        return {
            "--store": self.etcd.url,
            "--citadel-address": self.at("citadel_tls"),
            "--citadel-mtls-address": self.at("citadel_mtls"),
            "--trust-bundle-file": str(self.roots_file),
            "--token-file": str(self.folder / "no-token"),
            "--state-dir": str(self.folder / name),
            "--mtls-address": self.at("mtls"),
            "--plaintext-address": self.at("plaintext"),
            "--metrics-address": self.at("metrics"),
            "--log-level": "warning",
        }

    def at(self, port: str) -> str:
        return f"127.0.0.1:{self.ports[port]}"

    def service(
        self,
        module: str,
        flags: dict[str, str],
        *,
        name: str = "",
        checkout: Path = OURS,
        cores: Sequence[int] | None = None,
    ) -> ChildSpec:
        """A service of a checkout, by its own interpreter; on every core unless told otherwise."""
        python = checkout / ".venv" / "bin" / "python"
        words = [word for flag in flags.items() for word in flag]
        words += self._flags if module == "pilot" else ()
        program = str(python) if python.exists() else sys.executable
        prefix = self.cores.prefix(sorted(self._affinity) if cores is None else cores)
        return ChildSpec(
            name=name or module,
            command=(*prefix, program, "-m", f"services.{module}.main", *words),
            log=self.folder / f"{name or module}.log",
            directory=checkout,
        )

    async def start_pilot(self) -> float:
        """Start Pilot on what the store holds; seconds until it is ready."""
        self.pilot = Child(self._pilot())
        began = monotonic()
        await self.pilot.start()
        self._exits.push_async_callback(self.pilot.stop)
        await self.pilot_ready()
        return monotonic() - began

    async def another_pilot(
        self, stack: AsyncExitStack, flags: Mapping[str, str] = NO_FLAGS
    ) -> tuple[Child, str]:
        """One more on the same store, with a certificate and ports of its own, until the stack unwinds; its mTLS address."""
        self._others += 1
        name = f"pilot-{self._others}"
        self._enrol_pilot(name)
        mtls, metrics = free_port("127.0.0.1"), free_port("127.0.0.1")
        given = self._flags_of_pilot(name) | {
            "--mtls-address": f"127.0.0.1:{mtls}",
            "--metrics-address": f"127.0.0.1:{metrics}",
            **flags,
        }
        del given["--plaintext-address"]
        child = Child(self.service("pilot", given, name=name))
        await child.start()
        stack.push_async_callback(child.stop)
        await wait_http(child, "127.0.0.1", metrics, timeout_s=READY_S)
        return child, f"127.0.0.1:{mtls}"

    async def restart_pilot(self) -> None:
        """Kill Pilot; a fresh one on the same ports, ready."""
        before = self.pilot_pid
        self.pilot.kill()
        async with asyncio.timeout(READY_S):
            while self.pilot.pid in {None, before}:
                await asyncio.sleep(0.02)
        await self.pilot_ready()

    async def pilot_ready(self) -> None:
        await wait_http(self.pilot, "127.0.0.1", self.ports["metrics"], timeout_s=READY_S)

    @property
    def pilot_pid(self) -> int:
        pid = self.pilot.pid
        assert pid is not None, "Pilot runs"
        return pid

    def fleet(
        self, members: Sequence[Member], *, plaintext: bool, sotw: bool, bodies: Path | None = None
    ) -> Fleet:
        """A fleet of these members, not started yet."""
        nodes = write_identities(
            self.folder / "fleet", members, None if plaintext else self.root, TRUST_DOMAIN
        )
        return Fleet(
            port=self.ports["plaintext" if plaintext else "mtls"],
            streams=len(members),
            nodes=nodes,
            roots=None if plaintext else self.roots_file,
            server_name="localhost" if plaintext else CONTROL_PLANE_DNS[PILOT_ACCOUNT],
            sotw=sotw,
            bodies=bodies,
        )
