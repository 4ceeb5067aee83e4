"""Laws of the engine: from events by way of states, scopes and groups to the sets that streams serve."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from random import Random

from services.pilot.groups import Groups
from services.pilot.snapshot import Delta, MeshSnapshot
from services.pilot.state import MeshState
from tests.laws.histories import PROXIES, Contents, Event, apply, event, independent
from tests.unit.pilot.mesh import WITH_MIXER, Made, generate
from tests.unit.pilot.watched import Watched, watch

ROOT = Path(__file__).parents[2]
HASH_SEEDS = ("0", "1", "4242")
LOOKS = 4
"""Times in a history that it is compared with a mesh that is built at once."""


class Living:
    """A Pilot without a store: a state and groups that live through a history, with a few proxies attached."""

    def __init__(self, random: Random, proxies: int) -> None:
        self.random = random
        self.now = Contents({}, {})
        self.state = MeshState()
        self.groups = Groups(WITH_MIXER)
        self.proxies = random.sample(PROXIES, proxies)
        self.views: list[Watched] = []
        self.steps = 0

    async def start(self) -> None:
        await self.groups.publish(self.state.snapshot, Delta(checks=True))
        self.views = [await watch(self.groups, proxy) for proxy in self.proxies]

    async def step(self) -> None:
        """One to three events, published together."""
        events = [event(self.random, self.now) for _ in range(self.random.choice((1, 1, 1, 2, 3)))]
        await self.take(independent(events))

    async def take(self, events: list[Event]) -> None:
        for item in events:
            self.now.take(item)
        self.steps += 1
        delta = apply(self.state, events, self.steps)
        await self.groups.publish(self.state.snapshot, delta)
        if self.state.snapshot.version % 2:
            # As after a quiet moment.
            self.state.look_ahead()
            self.groups.look_ahead()

    def digests(self) -> list[str]:
        """Of everything that each proxy is served: names, versions, bytes and origins."""
        return [digest(view.current.by_type) for view in self.views]


def digest(made: Made) -> str:
    found = blake2b()
    for url, named in sorted(made.items()):
        for name, item in sorted(named.items()):
            found.update(f"{url} {name} {item.version} {item.origins} ".encode())
            found.update(item.body)
    return found.hexdigest()


def same_content(one: MeshSnapshot, other: MeshSnapshot) -> bool:
    return replace(one, version=0, revision=0) == replace(other, version=0, revision=0)


# ---- incremental == full rebuild ------------------------------------------------------------------------------------


def incremental_is_full(seeds: Sequence[int], steps: int) -> None:
    """What lives through a history serves, whenever one looks, what a Pilot that starts then would; what differs is told."""
    for seed in seeds:
        asyncio.run(_incremental(Random(seed), steps))


async def _incremental(random: Random, steps: int) -> None:
    living = Living(random, 3)
    await living.start()
    for number in range(1, steps + 1):
        before = [view.current for view in living.views]
        await living.step()
        for view, old in zip(living.views, before, strict=True):
            named = view.current.changed_since(old.version)
            if named is not None and view.current is not old:
                told = {(url, name) for url, found in named.items() for name in found}
                assert told >= differing(old.by_type, view.current.by_type)
        if number % (steps // LOOKS) == 0:
            at_once = living.now.snapshot(random)
            assert same_content(at_once, living.state.snapshot)
            for proxy, found in zip(living.proxies, living.digests(), strict=True):
                assert found == digest(generate(at_once, proxy, WITH_MIXER)), (
                    f"step {number}: {proxy.id}"
                )


def differing(old: Made, new: Made) -> set[tuple[str, str]]:
    return {
        (url, name)
        for url in {**old, **new}
        for name in {**old.get(url, {}), **new.get(url, {})}
        if getattr(old.get(url, {}).get(name), "version", "")
        != getattr(new.get(url, {}).get(name), "version", "")
    }


# ---- the order of independent events --------------------------------------------------------------------------------


def order_does_not_matter(seeds: Sequence[int], steps: int) -> None:
    """Events about different objects, in another order and in other batches, lead to the same mesh and the same bytes."""
    for seed in seeds:
        _order(Random(seed), steps)


def _order(random: Random, steps: int) -> None:
    one, other, now = MeshState(), MeshState(), Contents({}, {})
    proxies = random.sample(PROXIES, 2)
    done = 0
    look = steps // LOOKS
    while done < steps:
        events = independent([event(random, now) for _ in range(random.randint(2, 12))])
        for item in events:
            now.take(item)
        for item in events:
            apply(one, [item])
        shuffled = random.sample(events, len(events))
        cut = random.randint(0, len(shuffled))
        for batch in (shuffled[:cut], shuffled[cut:]):
            apply(other, batch)
        done += len(events)
        assert same_content(one.snapshot, other.snapshot)
        if done >= look:
            look += steps // LOOKS
            for proxy in proxies:
                made = [generate(state.snapshot, proxy, WITH_MIXER) for state in (one, other)]
                assert digest(made[0]) == digest(made[1]), f"event {done}: {proxy.id}"


# ---- identical bytes in every replica -------------------------------------------------------------------------------


def replicas_serve_identical_bytes(seeds: Sequence[int], steps: int) -> None:
    """Processes that hash differently, and that came to a mesh by different ways, serve the same bytes of it."""
    program = f"from tests.laws.engine import tell; tell({list(seeds)!r}, {steps})"
    told = []
    for hash_seed in HASH_SEEDS:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        told.append(done.stdout.splitlines())
    assert len(told[0]) == len(seeds)
    for seed, *lines in zip(seeds, *told, strict=True):
        assert len(set(lines)) == 1, f"seed {seed} differs by PYTHONHASHSEED"


def tell(seeds: Sequence[int], steps: int) -> None:
    """A line for each seed: digests of what is served in the middle and at the end of its history."""
    for seed in seeds:
        sys.stdout.write(" ".join(asyncio.run(_replicas(Random(seed), steps))) + "\n")


async def _replicas(random: Random, steps: int) -> list[str]:
    """Another replica has every tenth step only, as one that reads in larger batches."""
    living = Living(random, 2)
    await living.start()
    behind, seen = MeshState(), Contents({}, {})
    found: list[str] = []
    for number in range(1, steps + 1):
        await living.step()
        if number % 10 == 0:
            apply(behind, seen.events_to(living.now), number)
            seen = living.now.copy()
        if number % (steps // 2) == 0:
            digests = living.digests()
            for proxy, its in zip(living.proxies, digests, strict=True):
                assert its == digest(generate(behind.snapshot, proxy, WITH_MIXER)), f"step {number}"
            found += digests
    return found


# ---- an earlier revision again --------------------------------------------------------------------------------------


def earlier_revisions_come_back(seeds: Sequence[int], steps: int) -> None:
    """When objects are put back to what they were at an earlier revision, exactly the bytes of then are served again."""
    for seed in seeds:
        asyncio.run(_earlier(Random(seed), steps))


async def _earlier(random: Random, steps: int) -> None:
    living = Living(random, 2)
    await living.start()
    kept: list[tuple[Contents, list[str]]] = []
    for number in range(1, steps + 1):
        await living.step()
        if number % (steps // 10) == 0:
            kept.append((living.now.copy(), living.digests()))
    for contents, digests in random.sample(kept, len(kept)):
        await living.take(living.now.events_to(contents))
        assert living.digests() == digests, "an earlier revision is served with other bytes"
