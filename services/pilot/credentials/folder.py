"""Gateways' credentials in a folder, read again when something changes.

    DIR/<namespace>/<name>/{tls.crt,tls.key,ca.crt} -> Folder.look -> what changed: name -> Credential, or None for gone

What cannot be used is reported once and leaves the last good one in force. Gone is what has no folder any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path

from services.pilot.credentials.credential import (
    CHAIN,
    KEY,
    ROOTS,
    Credential,
    CredentialError,
    CredentialName,
    credential,
)
from windward.telemetry.logging import get_logger

log = get_logger()
MOST = 1000
LARGEST_BYTES = 1024 * 1024
LOOK_EVERY_MS = 5_000
"""Files are looked at that often even when no change was announced: a link's target may be where nobody watches."""
DEBOUNCE_MS = 100
SETTLE_S = 0.3
"""A credential that is gone, or no pair, is looked at once more: some programs replace file by file."""
RETRY_S = 1.0

Changes = Mapping[CredentialName, Credential | None]
Stamp = tuple[tuple[int, ...], ...]
WHOLE: CredentialName = ("", "")
"""The folder itself, among problems."""


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: dict[CredentialName, Credential] = {}
        self._stamps: dict[CredentialName, Stamp] = {}
        self._problems: dict[CredentialName, str] = {}

    def look(self) -> dict[CredentialName, Credential | None]:
        """What differs from the last look. Raises OSError when the folder itself cannot be read: then nothing is known."""
        found = self._found()
        changed: dict[CredentialName, Credential | None] = {}
        for name, place in found.items():
            stamp = _stamp(place)
            if self._stamps.get(name) == stamp and name not in self._problems:
                continue
            self._stamps[name] = stamp
            try:
                now = credential(*(_read(place / file) for file in (CHAIN, KEY, ROOTS)))
            except CredentialError as error:
                self._problems[name] = str(error)
                continue
            self._problems.pop(name, None)
            if self.held.get(name) != now:
                changed[name] = self.held[name] = now
        for name in self._stamps.keys() - found.keys():
            del self._stamps[name]
            self._problems.pop(name, None)
            if self.held.pop(name, None) is not None:
                changed[name] = None
        return changed

    @property
    def problems(self) -> Mapping[CredentialName, str]:
        """What cannot be used as it is now, and why."""
        return dict(self._problems)

    def _found(self) -> dict[CredentialName, Path]:
        found: dict[CredentialName, Path] = {}
        for namespace in _folders(self.path):
            for place in _folders(namespace):
                if len(found) == MOST:
                    log.error("credential.too_many", folder=str(self.path), limit=MOST)
                    return found
                found[namespace.name, place.name] = place
        return found


def _folders(path: Path) -> list[Path]:
    return sorted(item for item in path.iterdir() if item.is_dir() and item.name[0] != ".")


def _stamp(place: Path) -> Stamp:
    """What changes whenever a file is written or another one takes its place."""
    out: list[tuple[int, ...]] = []
    for name in (CHAIN, KEY, ROOTS):
        try:
            at = (place / name).stat()
        except OSError:
            out.append(())
        else:
            out.append((at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns))
    return tuple(out)


def _read(path: Path) -> bytes:
    """Empty when it is not there. Raises CredentialError."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise CredentialError(f"{path.name}: {error.strerror}") from error
    if len(content) > LARGEST_BYTES:
        raise CredentialError(f"{path.name}: longer than {LARGEST_BYTES} bytes")
    return content


async def follow(folder: Folder) -> AsyncGenerator[Changes, None]:
    """What there is, however little, and then every change, for ever."""
    said: dict[CredentialName, str] = {}
    first = True
    async with aclosing(_looks(folder.path)) as looks:
        async for _ in looks:
            try:
                changed = await asyncio.to_thread(folder.look)
                if not first and (folder.problems != said or None in changed.values()):
                    await asyncio.sleep(SETTLE_S)
                    changed |= await asyncio.to_thread(folder.look)
                problems = folder.problems
            except OSError as error:
                changed, problems = {}, {WHOLE: error.strerror or str(error)}
            _report(said, problems, folder.path)
            if changed or first:
                yield changed
            first = False


def _report(
    said: dict[CredentialName, str], problems: Mapping[CredentialName, str], path: Path
) -> None:
    """Each once, as long as it lasts."""
    for name, reason in problems.items():
        if said.get(name) != reason:
            log.warning("credential.unusable", folder=str(path.joinpath(*name)), reason=reason)
    said.clear()
    said.update(problems)


async def _looks(path: Path) -> AsyncGenerator[None, None]:
    """Once a watch stands, when the system announces a change, and now and then."""
    from watchfiles import awatch

    while True:
        places = await asyncio.to_thread(_watched, path)
        watch = awatch(
            *places,
            watch_filter=None,
            recursive=False,
            step=DEBOUNCE_MS // 5,
            debounce=DEBOUNCE_MS,
            rust_timeout=LOOK_EVERY_MS,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        try:
            async with aclosing(watch):
                first = asyncio.ensure_future(anext(watch))
                try:
                    await asyncio.sleep(
                        0
                    )  # the watch begins; what changes from here on is announced
                    yield
                    await first
                finally:
                    first.cancel()
                    await asyncio.wait({first})
                while await asyncio.to_thread(_watched, path) == places:
                    yield
                    await anext(watch)
        except (OSError, RuntimeError) as error:
            log.warning("credential.watch_failed", folder=str(path), reason=str(error))
            await asyncio.sleep(RETRY_S)


def _watched(path: Path) -> list[Path]:
    """The folders on the way to the files, and those that links lead to; the next one up for what is not there."""
    wanted = {path.absolute(), path.absolute().parent}
    try:
        for namespace in _folders(path):
            wanted.add(namespace.absolute())
            for place in _folders(namespace)[:MOST]:
                wanted.add(place.absolute())
                wanted |= {(place / file).resolve().parent for file in (CHAIN, KEY, ROOTS)}
    except OSError:
        return [next(at for at in (path.absolute(), *path.absolute().parents) if at.is_dir())]
    return sorted(at for at in wanted if at.is_dir())
