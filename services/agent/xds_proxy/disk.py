"""Keeping the last good state on disk: read once at the start, written whenever Envoy has accepted something new.

    <state folder>/last-good (0700)/state (0600)     written beside itself, synced, then renamed: whole or not at all

The file's time is when a Pilot last stood behind what is in it, however often it was written since.

No failure here stops anything: a file that cannot be used is not used, a disk that cannot be written is told of (log, metric,
status) and tried again.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from time import time

from services.agent.xds_proxy.cache import Cache
from services.agent.xds_proxy.last_good import Owner, State, UnusableError, decode, encode
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.telemetry.logging import get_logger

log = get_logger()
FOLDER = "last-good"
FILE = "state"
MOST_BYTES = 64 * 1024 * 1024
GATHER_S = 0.5
"""Changes within this time are written together."""
PACE = 20.0
"""A write that took a second is followed by none for twenty: under changes without end the disk is not what is busy."""
RETRY_S = 30.0
CONFIRM_S = 30.0
"""How often a state that is still the mesh's is marked as such."""


class LastGood:
    """One agent's state on disk. ``load`` before Envoy starts, then ``keep`` in a task."""

    def __init__(
        self,
        state_dir: Path,
        owner: Owner,
        *,
        most_bytes: int = MOST_BYTES,
        now: Callable[[], float] = time,
    ) -> None:
        self.path = state_dir / FOLDER / FILE
        self.problem = ""
        """Why the file could not be read or written; empty when it could."""
        self.saved_at = 0.0
        """When what is on disk was written; 0: nothing of use is there."""
        self.confirmed_at = 0.0
        """When what is on disk was last known to be what the mesh wants."""
        self.loaded = False
        """Whether an earlier run's state was taken up."""
        self.failures = 0
        self._material: TlsMaterial | None = None
        self._owner = owner
        self._most_bytes = most_bytes
        self._now = now
        self._dirty = asyncio.Event()
        self._busy = False
        self._writing = Lock()
        """A write that was given up still goes on in its thread: the next one waits for it."""

    @property
    def pending(self) -> bool:
        """Whether something has changed that is not on disk yet."""
        return self._busy or self._dirty.is_set()

    def load(self) -> State | None:
        """What an earlier run left; None when there is nothing, or nothing that may be used. Never raises."""
        try:
            raw, confirmed_at = self._read()
            state = decode(raw, self._owner)
        except FileNotFoundError:
            return None
        except (OSError, UnusableError) as error:
            self._failed(
                "last_good.unusable",
                _reason(error),
                mend="it is not served from; a new one is written",
            )
            return None
        self.loaded = True
        self.saved_at = state.saved_at
        self.confirmed_at = min(confirmed_at, self._now())
        self._material = state.material
        age_s = round(self._now() - self.confirmed_at, 1)
        resources = sum(len(known.resources) for known in state.types.values())
        log.info("last_good.loaded", file=str(self.path), age_s=age_s, resources=resources)
        return state

    async def keep(self, cache: Cache, source: TlsSource, live_until: Callable[[], float]) -> None:
        """Write what changes, for ever. ``live_until``: when a Pilot last stood behind what Envoy has; now, while one does."""
        cache.on_change = self._dirty.set
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(source))
            while True:
                try:
                    # Not wait_for: when both happen at once, Python 3.11's forgets that it was cancelled.
                    async with asyncio.timeout(CONFIRM_S):
                        await self._dirty.wait()
                except TimeoutError:
                    self._confirm(live_until())
                    continue
                await asyncio.sleep(GATHER_S)
                began = loop.time()
                if await self.save(cache, source, live_until()):
                    await asyncio.sleep((loop.time() - began) * PACE)
                else:
                    await asyncio.sleep(RETRY_S)
                    self._dirty.set()

    async def save(self, cache: Cache, source: TlsSource, live_until: float) -> bool:
        """Write the present state; whether it is on disk now. Never raises for the disk's sake."""
        self._dirty.clear()
        self._busy = True
        try:
            return await self._save(cache, source, live_until)
        finally:
            self._busy = False

    async def _save(self, cache: Cache, source: TlsSource, live_until: float) -> bool:
        now = self._now()
        state = State(cache.frozen(), cache.revision, now, source.current)
        confirmed_at = max(live_until, self.confirmed_at)
        try:
            await asyncio.to_thread(self._write_alone, state, confirmed_at)
        except asyncio.CancelledError:
            self._dirty.set()
            raise
        except (OSError, UnusableError) as error:
            self._failed(
                "last_good.not_kept",
                _reason(error),
                mend="the earlier state stays; it is tried again",
            )
            return False
        self.problem = ""
        self.saved_at, self.confirmed_at = now, confirmed_at
        self._material = state.material
        return True

    async def finish(self, cache: Cache, source: TlsSource, live_until: float) -> None:
        """At the end: what has not been written yet, or until when it was confirmed."""
        if self._dirty.is_set():
            await self.save(cache, source, live_until)
        else:
            self._confirm(live_until)

    async def _follow(self, source: TlsSource) -> None:
        sequence = source.sequence if self._material == source.current else 0
        while True:
            await source.changed(sequence)
            sequence = source.sequence
            self._dirty.set()

    def _read(self) -> tuple[bytes, float]:
        """The content, and when it was last confirmed. Only what this user alone could have written is read."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise UnusableError("it is not a file")
            if about.st_uid != os.geteuid() or about.st_mode & 0o077:
                raise UnusableError("others than this user may read or write it")
            if about.st_size > self._most_bytes:
                raise UnusableError(
                    f"it has {about.st_size} bytes, at most {self._most_bytes} are read"
                )
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(self._most_bytes + 1), about.st_mtime
        finally:
            os.close(descriptor)

    def _write_alone(self, state: State, confirmed_at: float) -> None:
        with self._writing:
            self._write(state, confirmed_at)

    def _write(self, state: State, confirmed_at: float) -> None:
        content = encode(state, self._owner)
        if len(content) > self._most_bytes:
            raise UnusableError(
                f"the state has {len(content)} bytes, at most {self._most_bytes} are kept"
            )
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        temporary = folder / (FILE + ".new")
        with suppress(FileNotFoundError):
            temporary.unlink()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.utime(file.fileno(), (confirmed_at, confirmed_at))
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            raise
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _confirm(self, live_until: float) -> None:
        """Nothing has changed, and a Pilot stood behind it until then: the file's time says so after a restart."""
        if self.saved_at and live_until > self.confirmed_at and not self._dirty.is_set():
            with suppress(OSError):
                os.utime(self.path, (live_until, live_until))
                self.confirmed_at = live_until

    def _failed(self, event: str, reason: str, *, mend: str) -> None:
        self.problem = reason
        self.failures += 1
        log.error(event, file=str(self.path), reason=reason, consequence=mend)


def _reason(error: OSError | UnusableError) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
