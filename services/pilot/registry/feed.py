"""The store's configuration and what registries find, as one stream of configuration.

    follow_config ──┐
    file, dns, ... ─┴─> Merge -> ConfigBatch, ConfigBatch, ...

A registry that does not answer holds nothing up for long, and one that breaks is started again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from services.pilot import metrics
from services.pilot.registry.merge import Conflict, Merge
from services.pilot.registry.protocol import KINDS, MESH, Registry, RegistryBatch, Sources
from windward.config.feed import ConfigBatch
from windward.config.object import ConfigObject, ObjectKey
from windward.slices import Work, in_slices
from windward.telemetry.logging import get_logger

log = get_logger()
FIRST_WAIT_S = 10.0
"""How long the first batch waits for registries that do not answer: a Pilot that starts while one is away would
otherwise tell every Envoy that its services are gone, or never start."""
RESTART_S = 1.0


async def with_registries(
    config: AsyncGenerator[ConfigBatch, None],
    given: Sources,
    first_wait_s: float = FIRST_WAIT_S,
) -> AsyncGenerator[ConfigBatch, None]:
    """The first batch holds everything that could be read; later ones what changed."""
    view = _View(given.order)
    sources: dict[str, AsyncGenerator[Any, None]] = {MESH: config}
    sources |= {item.name: _restarting(item) for item in given.registries}
    pending = {asyncio.ensure_future(anext(source)): name for name, source in sources.items()}
    missing: set[str] | None = set(sources)
    gathered: list[ConfigBatch] = []
    loop = asyncio.get_running_loop()
    deadline = loop.time() + first_wait_s
    try:
        while True:
            waits = missing is not None and MESH not in missing
            done, _ = await asyncio.wait(
                pending,
                timeout=max(deadline - loop.time(), 0) if waits else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                name = pending.pop(task)
                made = await in_slices(view.taking(name, task.result()))
                pending[asyncio.ensure_future(anext(sources[name]))] = name
                if missing is not None:
                    missing.discard(name)
                    gathered.append(made)
                elif name == MESH or made.upserts or made.removed:
                    yield made
            if missing is not None and MESH not in missing:
                if not missing or loop.time() >= deadline:
                    for name in sorted(missing):
                        log.warning("registry.not_waited_for", registry=name, after_s=first_wait_s)
                    missing = None
                    yield joined(gathered)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for source in sources.values():
            await source.aclose()


async def _restarting(registry: Registry) -> AsyncGenerator[RegistryBatch, None]:
    """A registry that breaks, which none should, is begun anew; what it told stays until then."""
    while True:
        try:
            async with aclosing(registry.batches()) as batches:
                async for batch in batches:
                    yield batch
        except Exception:
            log.exception("registry.broken", registry=registry.name)
        await asyncio.sleep(RESTART_S)


class _View:
    """Each source's batches as changes of the whole."""

    def __init__(self, order: Sequence[str]) -> None:
        self._merge = Merge(order)
        self._said: set[Conflict] = set()

    def taking(self, name: str, batch: Any) -> Work[ConfigBatch]:
        if name != MESH:
            made = yield from self._merge.applying(name, batch)
            self._account(name)
            return ConfigBatch(made.upserts, made.removed, (), 0)
        found: ConfigBatch = batch
        mine = RegistryBatch(
            tuple(item for item in found.upserts if item.key.kind in KINDS),
            tuple(key for key in found.removed if key.kind in KINDS),
        )
        made = yield from self._merge.applying(MESH, mine)
        self._account(MESH)
        rest = tuple(item for item in found.upserts if item.key.kind not in KINDS)
        gone = tuple(key for key in found.removed if key.kind not in KINDS)
        return replace(found, upserts=rest + made.upserts, removed=gone + made.removed)

    def _account(self, name: str) -> None:
        metrics.REGISTRY_OBJECTS.labels(name).set(self._merge.count(name))
        conflicts = self._merge.conflicts
        metrics.REGISTRY_CONFLICTS.set(len(conflicts))
        for item in sorted(conflicts - self._said):
            log.warning("registry.conflict", host=item.host, wins=item.winner, loses=item.loser)
        # Once: a conflict that ends and comes back is news again.
        self._said = set(conflicts)


def joined(batches: Sequence[ConfigBatch]) -> ConfigBatch:
    """Batches that follow one another, as one."""
    if len(batches) == 1:
        return batches[0]
    upserts: dict[ObjectKey, ConfigObject[Any]] = {}
    removed: dict[ObjectKey, None] = {}
    for batch in batches:
        for key in batch.removed:
            upserts.pop(key, None)
            removed[key] = None
        for item in batch.upserts:
            upserts[item.key] = item
            removed.pop(item.key, None)
    return ConfigBatch(
        tuple(upserts.values()),
        tuple(removed),
        tuple(item for batch in batches for item in batch.invalid),
        max(batch.revision for batch in batches),
    )
