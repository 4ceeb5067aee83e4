"""The folder of credentials: what is noticed, what is kept, and what is said."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services.pilot.credentials import folder as module
from services.pilot.credentials.folder import Folder, follow
from tests.unit.rpc.pki import Authority
from windward.rpc.credentials import TlsMaterial

AUTHORITY = Authority()
SHOP = ("shop", "edge")


def new() -> TlsMaterial:
    return AUTHORITY.material("gateway")


def write(place: Path, material: TlsMaterial) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "tls.crt").write_bytes(material.chain_pem)
    (place / "tls.key").write_bytes(material.key_pem)


def mount(place: Path, material: TlsMaterial, version: str) -> None:
    """As Kubernetes does it: files are links through ``..data``, which is swapped."""
    place.mkdir(parents=True, exist_ok=True)
    write(place / f"..{version}", material)
    (place / "..new").symlink_to(f"..{version}")
    (place / "..new").replace(place / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (place / name).is_symlink():
            (place / name).symlink_to(f"..data/{name}")


def test_only_what_differs_is_told(tmp_path):
    folder, one = Folder(tmp_path), new()
    assert folder.look() == {}
    write(tmp_path / "shop" / "edge", one)
    write(tmp_path / "other" / "edge", new())
    assert set(folder.look()) == {SHOP, ("other", "edge")}
    assert folder.look() == {}
    two = new()
    write(tmp_path / "shop" / "edge", two)
    changed = folder.look()
    assert set(changed) == {SHOP}
    assert folder.held[SHOP].key_pem == two.key_pem


def test_a_pair_that_is_none_leaves_the_last_good_one(tmp_path):
    folder, one = Folder(tmp_path), new()
    place = tmp_path / "shop" / "edge"
    write(place, one)
    folder.look()
    (place / "tls.key").write_bytes(new().key_pem)
    assert folder.look() == {}
    assert folder.held[SHOP].key_pem == one.key_pem
    assert "does not belong" in folder.problems[SHOP]
    (place / "tls.key").unlink()
    assert folder.look() == {}
    assert "tls.key is missing" in folder.problems[SHOP]
    write(place, one)
    assert folder.look() == {}
    assert not folder.problems


def test_what_has_no_folder_any_more_is_gone(tmp_path):
    folder = Folder(tmp_path)
    write(tmp_path / "shop" / "edge", new())
    folder.look()
    shutil.rmtree(tmp_path / "shop")
    assert folder.look() == {SHOP: None}
    assert not folder.held


def test_neither_hidden_folders_nor_files_nor_too_much_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    for name in ("a", "b", "c", "..data"):
        write(tmp_path / "shop" / name, new())
    (tmp_path / "README").write_text("")
    folder = Folder(tmp_path)
    with capture_logs() as logs:
        assert set(folder.look()) == {("shop", "a"), ("shop", "b")}
    assert [item["event"] for item in logs] == ["credential.too_many"]
    monkeypatch.setattr(module, "LARGEST_BYTES", 10)
    assert Folder(tmp_path).look() == {}


async def test_swapped_links_and_what_comes_later_are_noticed(tmp_path):
    """By the watch, not by the look now and then: that comes too late for the test's patience."""
    place = tmp_path / "shop" / "edge"
    folder = Folder(tmp_path)
    async with asyncio.timeout(4), aclosing(follow(folder)) as feed:
        assert await anext(feed) == {}
        one, two, three = new(), new(), new()
        write(place, one)
        assert (await anext(feed))[SHOP] == folder.held[SHOP]
        shutil.rmtree(place)
        mount(place, two, "1")
        while (await anext(feed)).get(SHOP) is None:
            pass
        assert folder.held[SHOP].key_pem == two.key_pem
        mount(place, three, "2")
        assert SHOP in await anext(feed)
        assert folder.held[SHOP].key_pem == three.key_pem


async def test_what_is_bad_is_said_once_as_long_as_it_lasts(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK_EVERY_MS", 50)
    monkeypatch.setattr(module, "SETTLE_S", 0.01)
    write(tmp_path / "shop" / "bad", TlsMaterial(b"x", b"secret", b""))
    folder = Folder(tmp_path)
    with capture_logs() as logs:
        async with asyncio.timeout(10), aclosing(follow(folder)) as feed:
            await anext(feed)
            write(tmp_path / "shop" / "good", new())
            assert ("shop", "good") in await anext(feed)
            shutil.rmtree(tmp_path / "shop" / "good")
            assert await anext(feed) == {("shop", "good"): None}
    assert [item["event"] for item in logs] == ["credential.unusable"]
    assert logs[0]["folder"].endswith("shop/bad")
    assert "secret" not in str(logs)


@pytest.mark.parametrize("name", ["file", "absent"])
async def test_a_folder_that_cannot_be_read_is_said_and_looked_for(tmp_path, name, monkeypatch):
    monkeypatch.setattr(module, "LOOK_EVERY_MS", 50)
    path = tmp_path / name
    if name == "file":
        path.write_text("")
    folder = Folder(path)
    with capture_logs() as logs:
        async with asyncio.timeout(10), aclosing(follow(folder)) as feed:
            assert await anext(feed) == {}
            if name == "file":
                path.unlink()
            write(path / "shop" / "edge", new())
            assert SHOP in await anext(feed)
    assert [item["event"] for item in logs] == ["credential.unusable"]
