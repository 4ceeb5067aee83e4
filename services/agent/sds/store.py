"""All secrets that this agent can serve now: the workload's own, and those of files that somebody asked for.

    TlsSource (Citadel's) ──┐
    mounted files ──────────┴─> current: name -> Secret, replaced whole; ``changed`` wakes the streams

Files are watched once they are asked for. What was good stays until something good takes its place; an expired
certificate of the workload's own is not given to anybody who asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from services.agent.sds.files import Files, FileSecretError, mounted, parse_name, read_secret
from services.agent.sds.secret import DEFAULT, Secret, own_secrets
from windward.identity.certificate import load_chain
from windward.rpc.credentials import TlsSource
from windward.telemetry.logging import get_logger

log = get_logger()
DEBOUNCE_MS = 100
LOOK_AGAIN_MS = 30_000
"""Files are read again that often even when no change was seen: mounts may be of a kind that tells of none."""
MOST_FILES = 1000
Stamp = tuple[tuple[int, ...], ...]


class SecretStore:
    """``run`` in a task; ``want`` before ``current`` for names of files."""

    def __init__(
        self,
        source: TlsSource,
        *,
        mounts: Mapping[str, Files] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._now = now
        self._files: dict[str, Files] = dict(mounted() if mounts is None else mounts)
        self._stamps: dict[str, Stamp] = {}
        """Of each secret's files, as they were when they were read last."""
        self._secrets: dict[str, Secret] = {}
        self._until = datetime.max.replace(tzinfo=UTC)
        self._sequence = 1
        self._changed = asyncio.Event()
        self._more_files = asyncio.Event()
        self.file_failures = 0
        """Times that files of a secret could not be used."""
        self._take_own()
        self._read_files()

    @property
    def sequence(self) -> int:
        return self._sequence

    @property
    def current(self) -> Mapping[str, Secret]:
        if DEFAULT in self._files or self._until > self._now():
            return self._secrets
        return {name: item for name, item in self._secrets.items() if name != DEFAULT}

    async def changed(self, after: int) -> None:
        """Wait until the sequence is past a number."""
        while self._sequence <= after:
            await self._changed.wait()

    def want(self, names: Iterable[str]) -> None:
        """Serve these from now on, as far as they are names of files."""
        new = {
            name: files
            for name in names
            if name not in self._files and (files := parse_name(name)) is not None
        }
        if len(self._files) + len(new) > MOST_FILES:
            log.error("secret.too_many_files", limit=MOST_FILES)
            return
        if new:
            self._files |= new
            self._read_files()
            self._more_files.set()

    async def run(self) -> None:
        """Follow the certificate and the files, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_source())
            group.create_task(self._follow_files())

    async def _follow_source(self) -> None:
        sequence = self._source.sequence
        self._take_own()
        while True:
            await self._source.changed(sequence)
            sequence = self._source.sequence
            self._take_own()

    async def _follow_files(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._files:
                await self._more_files.wait()
            self._more_files.clear()
            # Here, because most agents serve no files.
            from watchfiles import awatch

            # What changed before the watch stands: it does so within the second.
            looks = [loop.call_later(after_s, self._read_files) for after_s in (0.0, 0.2, 1.0)]
            watched = _folders(self._files.values())
            watch = awatch(
                *watched,
                watch_filter=None,
                debounce=DEBOUNCE_MS,
                step=DEBOUNCE_MS // 5,
                recursive=False,
                stop_event=self._more_files,
                rust_timeout=LOOK_AGAIN_MS,
                yield_on_timeout=True,
                ignore_permission_denied=True,
            )
            try:
                async for _ in watch:
                    self._read_files()
                    if _folders(self._files.values()) != watched:
                        break
            except (OSError, RuntimeError) as error:
                # No more watches, or a folder went in that moment: looking now and then still finds changes.
                log.warning("secret.watch_failed", reason=str(error))
                await asyncio.sleep(LOOK_AGAIN_MS / 1000)
            finally:
                for look in looks:
                    look.cancel()

    def _take_own(self) -> None:
        material = self._source.current
        own = own_secrets(material)
        self._until = load_chain(material.chain_pem)[0].not_valid_after_utc
        self._put({name: item for name, item in own.items() if name not in self._files})

    def _read_files(self) -> None:
        """Read what has changed; a secret whose files are no good stays as it was."""
        found: dict[str, Secret] = {}
        for name, files in self._files.items():
            stamp = _stamp(files)
            if self._stamps.get(name) == stamp:
                continue
            self._stamps[name] = stamp
            try:
                found[name] = read_secret(name, files)
            except FileSecretError as error:
                self.file_failures += 1
                log.warning("secret.files_unusable", secret=name, reason=str(error))
        self._put(found)

    def _put(self, secrets: Mapping[str, Secret]) -> None:
        changed = {n: item for n, item in secrets.items() if self._secrets.get(n) != item}
        if changed:
            self._secrets = {**self._secrets, **changed}
            self._sequence += 1
            self._changed.set()
            self._changed = asyncio.Event()


def _stamp(files: Files) -> Stamp:
    """What changes whenever a file is written or another one takes its place."""
    out: list[tuple[int, ...]] = []
    for path in files.paths:
        try:
            at = path.stat()
        except OSError:
            out.append(())
        else:
            out.append((at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns))
    return tuple(out)


def _folders(files: Iterable[Files]) -> Sequence[Path]:
    """Folders to watch: of each file, and of what it is a link to; the next one up for those that are not there."""
    wanted: set[Path] = set()
    for item in files:
        for path in item.paths:
            for folder in (path.absolute().parent, path.resolve().parent):
                wanted.add(next(at for at in (folder, *folder.parents) if at.is_dir()))
    return sorted(wanted)
