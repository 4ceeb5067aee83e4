"""The secrets there are: Citadel's and files', the last good one of each, and the newest within moments."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from services.agent.sds.files import Files, PairFiles, RootsFile
from services.agent.sds.secret import own_secrets, pair_secret, roots_secret
from services.agent.sds.store import SecretStore
from tests.unit.agent.sds.certificates import material, pair, put
from windward.rpc.credentials import TlsSource

WAIT_S = 30.0


@asynccontextmanager
async def running(store: SecretStore) -> AsyncIterator[SecretStore]:
    work = asyncio.create_task(store.run())
    try:
        yield store
        assert not work.done()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def until(store: SecretStore, name: str, wanted: object) -> None:
    async with asyncio.timeout(WAIT_S):
        while store.current.get(name) != wanted:
            await store.changed(store.sequence)


async def watching(store: SecretStore) -> None:
    """Wait until the watch stands: a first change of a file beside it is noticed only then."""
    async with asyncio.timeout(WAIT_S):
        while "watchfiles" not in sys.modules:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
    del store


async def test_the_own_certificate_follows_its_source():
    first, second = material("1"), material("2")
    source = TlsSource(first)
    async with running(SecretStore(source, mounts={})) as store:
        assert store.current == own_secrets(first)
        source.replace(second)
        await until(store, "default", own_secrets(second)["default"])


async def test_an_expired_certificate_is_given_to_nobody():
    now = datetime.now(UTC)
    clock = [now]
    store = SecretStore(TlsSource(material(lasts_s=60)), mounts={}, now=lambda: clock[0])
    assert store.current.keys() == {"default", "ROOTCA"}
    clock[0] = now + timedelta(seconds=61)
    assert store.current.keys() == {"ROOTCA"}


async def test_files_are_served_once_they_are_asked_for(tmp_path):
    chain, key = pair()
    name = put(tmp_path, chain, key)
    store = SecretStore(TlsSource(material()), mounts={})
    assert name not in store.current
    sequence = store.sequence
    store.want([name, "default", "no file"])
    assert store.current[name] == pair_secret(name, chain, key)
    assert store.sequence == sequence + 1
    store.want([name])
    assert store.sequence == sequence + 1


async def test_files_swapped_by_a_link_are_noticed_as_kubernetes_does_it(tmp_path):
    """..data -> a folder of one version; another folder is made, then the link is renamed over the old one."""
    first, second = pair("1"), pair("2")
    put(tmp_path / "..1", *first)
    (tmp_path / "..data").symlink_to("..1")
    for file in ("cert.pem", "key.pem"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    name = f"file-cert:{tmp_path}/cert.pem~{tmp_path}/key.pem"
    async with running(SecretStore(TlsSource(material()), mounts={})) as store:
        store.want([name])
        assert store.current[name] == pair_secret(name, *first)
        await watching(store)
        put(tmp_path / "..2", *second)
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        await until(store, name, pair_secret(name, *second))


async def test_files_renamed_into_place_are_noticed_and_half_a_pair_is_not_served(tmp_path):
    first, second = pair("1"), pair("2")
    name = put(tmp_path / "here", *first)
    put(tmp_path / "new", *second)
    async with running(SecretStore(TlsSource(material()), mounts={})) as store:
        store.want([name])
        await watching(store)
        (tmp_path / "new" / "cert.pem").rename(tmp_path / "here" / "cert.pem")
        async with asyncio.timeout(WAIT_S):
            while not store.file_failures:
                await asyncio.sleep(0.01)
        assert store.current[name] == pair_secret(name, *first)
        (tmp_path / "new" / "key.pem").rename(tmp_path / "here" / "key.pem")
        await until(store, name, pair_secret(name, *second))


async def test_files_that_are_not_there_yet_are_found_when_they_come(tmp_path):
    folder = tmp_path / "later"
    name = f"file-cert:{folder}/cert.pem~{folder}/key.pem"
    pem, key = pair()
    async with running(SecretStore(TlsSource(material()), mounts={})) as store:
        store.want([name])
        assert name not in store.current
        await watching(store)
        put(folder, pem, key)
        await until(store, name, pair_secret(name, pem, key))


async def test_files_that_go_leave_what_was_good(tmp_path):
    chain, key = pair()
    name = put(tmp_path, chain, key)
    async with running(SecretStore(TlsSource(material()), mounts={})) as store:
        store.want([name])
        await watching(store)
        (tmp_path / "key.pem").unlink()
        async with asyncio.timeout(WAIT_S):
            while not store.file_failures:
                await asyncio.sleep(0.01)
        assert store.current[name] == pair_secret(name, chain, key)


async def test_a_mount_goes_before_citadel_also_when_citadel_renews(tmp_path):
    chain, key = pair()
    put(tmp_path, chain, key)
    mounts: dict[str, Files] = {
        "default": PairFiles(tmp_path / "cert.pem", tmp_path / "key.pem"),
        "ROOTCA": RootsFile(tmp_path / "cert.pem"),
    }
    source = TlsSource(material())
    async with running(SecretStore(source, mounts=mounts)) as store:
        wanted = {
            "default": pair_secret("default", chain, key),
            "ROOTCA": roots_secret("ROOTCA", chain),
        }
        assert store.current == wanted
        source.replace(material("2"))
        await asyncio.sleep(0)
        assert store.current == wanted


async def test_a_mount_that_is_no_good_is_not_replaced_by_another_identity(tmp_path):
    put(tmp_path, pair()[0], pair()[1])
    mounts = {"default": PairFiles(tmp_path / "cert.pem", tmp_path / "key.pem")}
    store = SecretStore(TlsSource(material()), mounts=mounts)
    assert store.current.keys() == {"ROOTCA"}
    assert store.file_failures == 1


def test_an_agent_without_files_does_not_load_the_watcher():
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "import services.agent.sds.server, services.agent.xds_proxy.served\n"
        "assert 'watchfiles' not in sys.modules\n"
    )
    root = Path(__file__).resolve().parents[4]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
