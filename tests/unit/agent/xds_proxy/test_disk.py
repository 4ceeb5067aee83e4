"""Kept whole or not at all, for the owner alone; whatever the disk does, the agent goes on and says what is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.agent.xds_proxy import disk, last_good
from services.agent.xds_proxy.cache import Cache, Held
from services.agent.xds_proxy.disk import LastGood
from services.agent.xds_proxy.last_good import Owner, encode
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.xds.resource import CLUSTER

OWNER = Owner("spiffe://cluster.local/ns/shop/sa/reviews", "sidecar~10.0.0.7~reviews-v1.shop~x")
OTHER = Owner("spiffe://cluster.local/ns/shop/sa/ratings", "sidecar~10.0.0.8~ratings-v1.shop~x")
MATERIAL = TlsMaterial(b"chain", b"key", b"roots")
WAIT_S = 30.0


def filled(version: str = "1", size: int = 3) -> Cache:
    cache = Cache(revision="41")
    cache.accept(CLUSTER, {"a": Held(version, b"x" * size)}, (), set())
    return cache


async def saved(folder: Path, cache: Cache | None = None) -> LastGood:
    kept = LastGood(folder, OWNER)
    assert await kept.save(cache or filled(), TlsSource(MATERIAL), 0.0), kept.problem
    return kept


async def test_what_was_saved_is_loaded_and_only_the_owner_can_read_it(tmp_path):
    kept = await saved(tmp_path)
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert kept.path.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in kept.path.parent.iterdir()] == [disk.FILE]
    again = LastGood(tmp_path, OWNER)
    state = again.load()
    assert state is not None
    assert state.types == filled().frozen()
    assert (state.revision, state.material) == ("41", MATERIAL)
    assert (again.loaded, again.problem, again.saved_at) == (True, "", kept.saved_at)


async def test_what_is_not_on_disk_yet_is_pending(tmp_path):
    kept, cache, source = LastGood(tmp_path, OWNER), Cache(), TlsSource(MATERIAL)

    def pending() -> bool:
        return kept.pending

    assert not pending()
    task = asyncio.create_task(kept.keep(cache, source, lambda: 0.0))
    await asyncio.sleep(0)
    cache.accept(CLUSTER, {"a": Held("1", b"x")}, (), set())
    assert pending()
    saving = asyncio.create_task(kept.save(cache, source, 0.0))
    await asyncio.sleep(0)
    assert pending()
    assert await saving
    assert not pending()
    task.cancel()
    await asyncio.wait({task})


async def test_nothing_there_is_nothing_to_tell(tmp_path):
    kept = LastGood(tmp_path, OWNER)
    assert kept.load() is None
    assert (kept.problem, kept.failures, kept.loaded) == ("", 0, False)


Damage = Callable[[Path], object]


def rewritten(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def of_another_format(number: int) -> Damage:
    at = len(last_good.MAGIC)
    return rewritten(lambda raw: raw[:at] + number.to_bytes(2, "big") + raw[at + 2 :])


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a changed byte": (rewritten(lambda raw: raw[:200] + b"\0" + raw[201:]), "digest differs"),
    "truncated": (rewritten(lambda raw: raw[: len(raw) // 2]), "cut off"),
    "empty": (rewritten(lambda _: b""), "empty"),
    "something else": (rewritten(lambda _: b"{}"), "not a state"),
    "an older format": (of_another_format(0), "an older agent"),
    "a newer format": (of_another_format(9), "a newer agent"),
    "of another identity": (
        rewritten(lambda _: encode(last_good.State({}, "", 0.0), OTHER)),
        "belongs to spiffe://cluster.local/ns/shop/sa/ratings",
    ),
    "open to others": (lambda path: path.chmod(0o640), "others than this user"),
    "a folder": (as_folder, "not a file"),
    "a link": (as_link, "symbolic links"),
    "a pipe": (as_pipe, "not a file"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.values(), ids=DAMAGES)
async def test_what_may_not_be_used_is_not_served_and_a_good_one_takes_its_place(
    tmp_path, damage, reason
):
    damage((await saved(tmp_path)).path)
    kept = LastGood(tmp_path, OWNER)
    assert kept.load() is None
    assert reason in kept.problem
    assert (kept.failures, kept.loaded, kept.saved_at) == (1, False, 0.0)
    if damage is as_folder:
        return
    assert await kept.save(filled("2"), TlsSource(MATERIAL), 0.0)
    assert kept.problem == ""
    state = LastGood(tmp_path, OWNER).load()
    assert state is not None
    assert state.types == filled("2").frozen()


@pytest.mark.root
async def test_what_another_user_owns_is_not_served(tmp_path):
    """Root may read it all the same: that is no reason to believe it."""
    path = (await saved(tmp_path)).path
    os.chown(path, 1337, 1337)
    kept = LastGood(tmp_path, OWNER)
    assert kept.load() is None
    assert "others than this user" in kept.problem


async def test_too_large_is_neither_written_nor_read(tmp_path):
    small = LastGood(tmp_path, OWNER, most_bytes=2000)
    source = TlsSource(MATERIAL)
    assert await small.save(filled(), source, 0.0)
    assert not await small.save(filled("2", size=2000), source, 0.0)
    assert "at most 2000 are kept" in small.problem
    again = LastGood(tmp_path, OWNER, most_bytes=2000)
    state = again.load()
    assert state is not None
    assert state.types == filled().frozen()
    await saved(tmp_path, filled("2", size=2000))
    assert again.load() is None
    assert "at most 2000 are read" in again.problem


async def test_a_folder_that_others_could_enter_is_closed(tmp_path):
    (tmp_path / disk.FOLDER).mkdir(mode=0o755)
    kept = await saved(tmp_path)
    assert kept.path.parent.stat().st_mode & 0o777 == 0o700


async def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    kept = await saved(tmp_path)
    (kept.path.parent / "state.new").write_bytes(b"half")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        assert not await kept.save(filled("2"), TlsSource(MATERIAL), 0.0)
    assert kept.problem == "No space left on device"
    assert [path.name for path in kept.path.parent.iterdir()] == [disk.FILE]
    state = LastGood(tmp_path, OWNER).load()
    assert state is not None
    assert state.types == filled().frozen()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    at = tmp_path / "small"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(at)], check=True)
    yield at
    subprocess.run(["umount", str(at)], check=True)


@pytest.mark.root
async def test_a_full_disk_keeps_the_earlier_state_and_is_told_of(small_disk):
    kept = await saved(small_disk)
    (small_disk / "fill").write_bytes(b"x" * 40_000)
    assert not await kept.save(filled("2", size=40_000), TlsSource(MATERIAL), 0.0)
    assert "No space left" in kept.problem
    state = LastGood(small_disk, OWNER).load()
    assert state is not None
    assert state.types == filled().frozen()
    (small_disk / "fill").unlink()
    assert await kept.save(filled("2", size=40_000), TlsSource(MATERIAL), 0.0)
    assert kept.problem == ""


@pytest.mark.root
async def test_a_full_disk_from_the_start_is_no_reason_not_to_start(small_disk):
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={small_disk}/fill"], check=False, capture_output=True
    )
    kept = LastGood(small_disk, OWNER)
    assert kept.load() is None
    assert not await kept.save(filled(), TlsSource(MATERIAL), 0.0)
    assert "No space left" in kept.problem


@pytest.mark.root
async def test_a_read_only_disk_serves_what_is_there_and_keeps_nothing(small_disk):
    await saved(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    kept = LastGood(small_disk, OWNER)
    assert kept.load() is not None
    assert not await kept.save(filled("2"), TlsSource(MATERIAL), 0.0)
    assert "Read-only" in kept.problem


# ---- keeping --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GATHER_S", 0.0), ("PACE", 0.0), ("RETRY_S", 0.01), ("CONFIRM_S", 0.01)):
        monkeypatch.setattr(disk, name, value)


class Keeping:
    """``keep`` at work beside a test."""

    def __init__(
        self, kept: LastGood, cache: Cache, source: TlsSource, live_until: float = 0.0
    ) -> None:
        self._work = kept.keep(cache, source, lambda: live_until)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._work)

    async def __aexit__(self, *_: object) -> None:
        assert not self._task.done()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def until_on_disk(folder: Path, cache: Cache, material: TlsMaterial) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            state = LastGood(folder, OWNER).load()
            if state and (state.types, state.material) == (cache.frozen(), material):
                return
            await asyncio.sleep(0.01)


async def test_every_change_reaches_the_disk(tmp_path, quick):
    cache, source, kept = Cache(), TlsSource(MATERIAL), LastGood(tmp_path, OWNER)
    async with Keeping(kept, cache, source):
        await until_on_disk(tmp_path, cache, MATERIAL)
        cache.accept(CLUSTER, {"a": Held("1", b"x")}, (), set())
        await until_on_disk(tmp_path, cache, MATERIAL)
        renewed = TlsMaterial(b"chain 2", b"key 2", b"roots")
        source.replace(renewed)
        await until_on_disk(tmp_path, cache, renewed)


async def test_a_disk_that_comes_back_gets_what_it_missed(tmp_path, quick):
    blocked = tmp_path / disk.FOLDER
    blocked.write_bytes(b"a file stands where the folder should")
    cache, source, kept = filled(), TlsSource(MATERIAL), LastGood(tmp_path, OWNER)
    async with Keeping(kept, cache, source):
        async with asyncio.timeout(WAIT_S):
            while kept.failures < 2:
                await asyncio.sleep(0.01)
        blocked.unlink()
        await until_on_disk(tmp_path, cache, MATERIAL)


async def test_its_time_is_until_when_a_pilot_stood_behind_it(tmp_path, quick):
    """A restart without a Pilot, and a renewed certificate, do not make a configuration any younger."""
    cache, source, kept = filled(), TlsSource(MATERIAL), LastGood(tmp_path, OWNER)
    async with Keeping(kept, cache, source, 1000.0):
        await until_on_disk(tmp_path, cache, MATERIAL)
    again = LastGood(tmp_path, OWNER)
    again.load()
    assert again.confirmed_at == 1000.0
    renewed = TlsMaterial(b"chain 2", b"key 2", b"roots")
    source.replace(renewed)
    async with Keeping(again, cache, source, 0.0):
        await until_on_disk(tmp_path, cache, renewed)
    later = LastGood(tmp_path, OWNER)
    later.load()
    assert later.confirmed_at == 1000.0
    assert later.saved_at > 1000.0
    async with Keeping(later, cache, source, 2000.0), asyncio.timeout(WAIT_S):
        while later.path.stat().st_mtime != 2000.0:
            await asyncio.sleep(0.01)
    await later.finish(cache, source, 3000.0)
    assert later.path.stat().st_mtime == 3000.0


async def test_a_restart_that_changes_nothing_writes_nothing(tmp_path, quick):
    kept = await saved(tmp_path)
    before = kept.path.stat().st_ino
    again = LastGood(tmp_path, OWNER)
    state = again.load()
    assert state is not None
    async with Keeping(again, Cache(state.types), TlsSource(MATERIAL)):
        for _ in range(10):
            await asyncio.sleep(0)
    assert again.path.stat().st_ino == before


async def test_a_time_in_the_future_does_not_make_a_state_younger_than_now(tmp_path):
    kept = await saved(tmp_path)
    os.utime(kept.path, (4e9, 4e9))
    later = LastGood(tmp_path, OWNER, now=lambda: kept.saved_at + 5)
    later.load()
    assert later.confirmed_at == kept.saved_at + 5


async def test_at_the_end_only_what_was_not_written_is(tmp_path):
    cache, source, kept = filled(), TlsSource(MATERIAL), LastGood(tmp_path, OWNER)
    async with Keeping(kept, cache, source):
        await asyncio.sleep(0)
        cache.accept(CLUSTER, {"b": Held("1", b"x")}, (), set())
    await kept.finish(cache, source, 0.0)
    assert kept.path.exists()
    shutil.rmtree(kept.path.parent)
    await kept.finish(cache, source, 0.0)
    assert not kept.path.exists()
