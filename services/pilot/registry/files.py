"""The file registry: ServiceEntries and WorkloadEntries of a folder or a file, read again when something changes.

    path -> read_folder (what files say now) -> Folder.take -> RegistryBatch, problems

One bad file or object never removes a good one: what cannot be read stays as it was, and is reported by file, line and
field. Removed is what a file that can be read no longer has, and what was in a file that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.pilot import metrics
from services.pilot.registry.protocol import KINDS, NETWORKING, RegistryBatch, decode_found, named
from windward.config.document import LARGEST_BYTES, Document, parse_documents
from windward.config.finding import Severity
from windward.config.object import ConfigObject, ObjectKey
from windward.telemetry.logging import get_logger

log = get_logger()
SUFFIXES = frozenset({".yaml", ".yml", ".json"})
MOST_FILES = 1000
LOOK_EVERY_S = 5.0
"""Looked at even when nothing is announced: a link's target may change where nobody watches."""
SETTLE_S = 0.2
"""A file that is gone is looked for once more: some programs write a file by removing it first."""
RETRY_S = 1.0
SOURCE = "file"
DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Problem:
    """Where, and what is wrong."""

    file: str
    line: int
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class FileContent:
    """One file. ``bad``: keys of objects that stand there and cannot be used; None among them: which, is unknown."""

    objects: Mapping[ObjectKey, ConfigObject[Any]] = field(default_factory=dict)
    bad: frozenset[ObjectKey | None] = frozenset()
    problems: tuple[Problem, ...] = ()


def read_text(text: str, file: str) -> FileContent:
    """What a file says. Never raises."""
    objects: dict[ObjectKey, ConfigObject[Any]] = {}
    bad: set[ObjectKey | None] = set()
    problems: list[Problem] = []
    for document in parse_documents(text, file):
        made, found = _read_document(document)
        problems += found
        if made is None:
            bad.add(_key_of(document.raw))
        elif made.key in objects:
            message = f"{made.key.kind} {made.key.name} stands twice in this file"
            problems.append(Problem(file, document.line, "metadata.name", message))
        else:
            objects[made.key] = made
    return FileContent(objects, frozenset(bad), tuple(problems))


def _read_document(document: Document) -> tuple[ConfigObject[Any] | None, list[Problem]]:
    file, line = document.file, document.line
    if document.raw is None:
        return None, [
            Problem(file, _line(document, item.path), item.path, item.message)
            for item in document.findings
        ]
    kind = document.raw.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        known = " and ".join(sorted(KINDS))
        return None, [Problem(file, line, "kind", f"only {known} stand here, this is {kind!r}")]
    made, findings = decode_found(SOURCE, document.raw)
    return made, [
        Problem(file, _line(document, item.path), item.path, item.message)
        for item in findings
        if item.severity is Severity.ERROR
    ]


def _line(document: Document, path: str) -> int:
    """The line of a field, or of the nearest one around it."""
    while path and path not in document.lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return document.lines.get(path, document.line)


def _key_of(raw: Mapping[str, Any] | None) -> ObjectKey | None:
    """Which object a broken one is, if that much can be said."""
    metadata = (raw or {}).get("metadata")
    if raw is None or not isinstance(metadata, dict):
        return None
    kind, name = raw.get("kind"), metadata.get("name")
    namespace = metadata.get("namespace") or DEFAULT_NAMESPACE
    if not all(isinstance(word, str) and word for word in (kind, name, namespace)):
        return None
    return named(SOURCE, ObjectKey(NETWORKING, str(kind), str(namespace), str(name)))


class Folder:
    """What the files say, with what they said before where they cannot be understood now. Pure."""

    def __init__(self) -> None:
        self._files: dict[str, FileContent] = {}
        self._told: dict[ObjectKey, ConfigObject[Any]] = {}
        self.problems: tuple[Problem, ...] = ()

    def take(self, files: Mapping[str, FileContent]) -> RegistryBatch:
        """Every file there is, by name; the difference."""
        self._files = {
            name: content
            if not content.bad
            else _with_kept(content, self._files.get(name, FileContent()))
            for name, content in files.items()
        }
        problems = [item for name in sorted(files) for item in files[name].problems]
        now: dict[ObjectKey, ConfigObject[Any]] = {}
        owner: dict[ObjectKey, str] = {}
        for name in sorted(self._files):
            for key, item in self._files[name].objects.items():
                if key in now:
                    message = f"{key.kind} {key.name} stands in {owner[key]} already"
                    problems.append(Problem(name, 1, "metadata.name", message))
                else:
                    now[key], owner[key] = item, name
        self.problems = tuple(problems)
        upserts = tuple(item for key, item in now.items() if self._told.get(key) != item)
        removed = tuple(key for key in self._told if key not in now)
        self._told = now
        return RegistryBatch(upserts, removed)


def _with_kept(now: FileContent, before: FileContent) -> FileContent:
    """What stands there and is broken, stays as it was. Where it cannot be told what is broken, all stays."""
    kept = {
        key: item
        for key, item in before.objects.items()
        if None in now.bad or (key in now.bad and key not in now.objects)
    }
    return FileContent({**kept, **now.objects}, now.bad, now.problems)


class FileRegistry:
    def __init__(self, path: Path) -> None:
        self.name = f"{SOURCE}:{path}"
        self._path = path
        self._cache: dict[str, tuple[tuple[int, ...], FileContent]] = {}
        self._said: set[Problem] = set()

    async def batches(self) -> AsyncGenerator[RegistryBatch, None]:
        folder, first = Folder(), True
        async with aclosing(self._looks()) as looks:
            async for _ in looks:
                files = await self._read(folder_known=not first)
                if files is None:
                    continue
                batch = folder.take(files)
                self._report(folder.problems)
                if first or batch.upserts or batch.removed:
                    yield RegistryBatch(batch.upserts, batch.removed, whole=first)
                first = False

    async def _read(self, *, folder_known: bool) -> dict[str, FileContent] | None:
        """None: the path itself cannot be read, so that nothing is known."""
        before = self._cache.keys()
        try:
            files = await asyncio.to_thread(self._read_all)
            if folder_known and before - files.keys():
                await asyncio.sleep(SETTLE_S)
                files = await asyncio.to_thread(self._read_all)
        except OSError as error:
            metrics.REGISTRY_UP.labels(self.name).set(0)
            self._report((Problem(str(self._path), 0, "", error.strerror or str(error)),))
            return None
        metrics.REGISTRY_UP.labels(self.name).set(1)
        return files

    def _read_all(self) -> dict[str, FileContent]:
        """Every file; those that are as they were are not parsed again. Raises OSError for the path itself."""
        cache: dict[str, tuple[tuple[int, ...], FileContent]] = {}
        for count, path in enumerate(_files_at(self._path)):
            name = str(path)
            known = self._cache.get(name)
            if count >= MOST_FILES:
                cache[name] = ((), _unreadable(name, f"is not read: over {MOST_FILES} files"))
                continue
            try:
                seen = path.stat()
                mark = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
                if known is None or known[0] != mark:
                    known = (mark, self._content(path, seen.st_size))
            except OSError as error:
                known = ((), _unreadable(name, error.strerror or str(error)))
            cache[name] = known
        self._cache = cache
        return {name: content for name, (_, content) in cache.items()}

    def _content(self, path: Path, size: int) -> FileContent:
        if size > LARGEST_BYTES:
            return _unreadable(str(path), f"is larger than {LARGEST_BYTES // 1024 // 1024} MiB")
        try:
            return read_text(path.read_text(), str(path))
        except UnicodeDecodeError as error:
            return _unreadable(str(path), f"is not UTF-8 text: {error.reason} at {error.start}")

    async def _looks(self) -> AsyncGenerator[None, None]:
        """At once, and then whenever something may have changed."""
        while True:
            try:
                async with aclosing(watched(self._path)) as looks:
                    async for _ in looks:
                        yield
            except OSError as error:
                log.debug("registry.not_watched", registry=self.name, reason=str(error))
            await asyncio.sleep(RETRY_S)

    def _report(self, problems: tuple[Problem, ...]) -> None:
        """Each once, as long as it lasts."""
        metrics.REGISTRY_PROBLEMS.labels(self.name).set(len(problems))
        for item in problems:
            if item not in self._said:
                log.warning(
                    "registry.problem",
                    registry=self.name,
                    at=f"{item.file}:{item.line}:{item.path}".rstrip(":"),
                    reason=item.message,
                )
        self._said = set(problems)


def _unreadable(name: str, why: str) -> FileContent:
    return FileContent({}, frozenset({None}), (Problem(name, 1, "", why),))


def _files_at(path: Path) -> list[Path]:
    if not path.is_dir():
        path.stat()
        return [path]
    return sorted(
        item
        for item in path.iterdir()
        if item.suffix in SUFFIXES and not item.name.startswith(".") and not item.is_dir()
    )


async def watched(path: Path, look_every_s: float = LOOK_EVERY_S) -> AsyncGenerator[None, None]:
    """Time to look: once the watch has begun, when the system announces a change, and now and then. Raises OSError."""
    from watchfiles import awatch

    # Links are swapped beside or above what is read: Kubernetes replaces ``..data``, deployments the folder itself.
    folder = path if path.is_dir() else path.parent

    def concerns(_: object, changed: str) -> bool:
        return Path(changed).parent == folder or Path(changed) == path

    changes = awatch(
        *{folder, path.parent},
        watch_filter=concerns,
        recursive=False,
        step=20,
        debounce=200,
        rust_timeout=int(look_every_s * 1000),
        yield_on_timeout=True,
    )
    async with aclosing(changes):
        first = asyncio.ensure_future(anext(changes))
        try:
            await asyncio.sleep(0)  # the watch begins; what changes from here on is announced
            yield
            await first
        finally:
            first.cancel()
            await asyncio.wait({first})
        yield
        async for _ in changes:
            yield
