"""The etcd of a test or a local mesh: which binary, how it is started, and that it can be killed and comes back."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from windward.local import etcd as module
from windward.local.errors import LocalMeshError
from windward.local.etcd import EtcdCluster, EtcdProcess, etcd_command, find_etcd
from windward.store.open import open_store
from windward.store.protocol import Transaction, Write


def test_a_missing_binary_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(LocalMeshError, match="etcd-server"):
        find_etcd()


def test_the_installed_binary_comes_first():
    assert find_etcd() == (shutil.which("etcd"), False)


def test_the_development_binary_is_named_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.setattr(module, "find_etcd", lambda: ("/wheel/etcd", True))
    command = etcd_command(tmp_path, client_port=1, peer_port=2)
    assert command[0] == "/wheel/etcd"
    assert "--experimental-initial-corrupt-check" in command
    assert "corrupt" in capsys.readouterr().err


def test_it_listens_on_loopback_only(tmp_path: Path):
    command = etcd_command(tmp_path, client_port=1, peer_port=2)
    urls = [argument for argument in command if "-urls=" in argument]
    assert len(urls) == 4
    assert all("=http://127.0.0.1:" in argument for argument in urls)
    assert f"--data-dir={tmp_path}" in command


async def test_it_keeps_its_data_and_its_port_over_a_kill(tmp_path: Path):
    process = EtcdProcess(tmp_path / "data")
    await process.start()
    try:
        url = process.url
        store = open_store(url)
        await store.commit(Transaction((Write("/kept", b"1"),)))
        await process.kill()
        await process.start()
        assert process.url == url
        entry = await store.get("/kept")
        assert entry is not None
        assert entry.value == b"1"
        await store.close()
        process.pause()
    finally:
        await process.stop()
    await process.stop()


def test_a_member_of_a_cluster_knows_the_others(tmp_path: Path):
    members = {"a": 2, "b": 4}
    command = etcd_command(tmp_path, client_port=1, peer_port=2, name="a", members=members)
    assert "--name=a" in command
    assert "--initial-cluster=a=http://127.0.0.1:2,b=http://127.0.0.1:4" in command
    made = EtcdCluster(tmp_path, 3)
    assert made.url == "etcd://" + ",".join(member.endpoint for member in made.members)
    assert all(len(member.members or {}) == 3 for member in made.members)
