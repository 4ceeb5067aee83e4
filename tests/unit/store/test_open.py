"""From a setting to a store: what is taken, and what is refused with words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from windward.store.etcd.store import EtcdStore
from windward.store.memory import MemoryStore
from windward.store.open import open_store


def test_memory():
    assert isinstance(open_store("memory:"), MemoryStore)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "etcd:",
        "etcd://",
        "127.0.0.1:2379",
        "http://127.0.0.1:2379",
        "etcd://127.0.0.1:2379/path",
        "etcds://127.0.0.1:2379?insecure=true",
    ],
)
def test_what_is_not_a_store_is_refused_by_its_name(url: str):
    with pytest.raises(ValueError, match=re.escape(repr(url))):
        open_store(url)


async def test_every_endpoint_is_taken_and_the_first_is_used():
    store = open_store("etcd://one:2379,two:2379")
    assert isinstance(store, EtcdStore)
    connection = store._connection
    assert connection.endpoint == "one:2379"
    connection.rotate("one:2379")
    assert connection.endpoint == "two:2379"
    connection.rotate("two:2379")
    assert connection.endpoint == "one:2379"


async def test_only_who_saw_the_failure_turns_away():
    connection = open_store("etcd://one:2379,two:2379")._connection  # type: ignore[attr-defined]
    for _ in range(2):
        connection.rotate("one:2379")
    assert connection.endpoint == "two:2379"


async def test_credentials_are_no_part_of_the_address():
    store = open_store("etcd://pilot:secret@one:2379,two:2379")
    assert isinstance(store, EtcdStore)
    connection = store._connection
    assert (connection._user, connection._password) == ("pilot", "secret")
    assert connection.endpoint == "one:2379"


async def test_tls_material_is_read_from_the_files_named(tmp_path: Path):
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_bytes(name.encode())
    query = "&".join(f"{name}={tmp_path / name}" for name in ("ca", "cert", "key"))
    store = open_store(f"etcds://one:2379?{query}")
    assert isinstance(store, EtcdStore)
    tls = store._connection._tls
    assert tls is not None
    assert (tls.ca, tls.certificate, tls.key) == (b"ca", b"cert", b"key")
