"""From a setting to a store: ``etcd://host:port[,host:port]`` or ``memory:``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from windward.process import FatalError
from windward.store.etcd.connection import Tls
from windward.store.etcd.store import EtcdStore
from windward.store.memory import MemoryStore
from windward.store.protocol import Store


def open_store(url: str) -> Store:
    """Make a store's client; it connects when it is first used. Raises ValueError for what is not a store.

    ``etcds://`` speaks TLS: ``etcds://h1:2379,h2:2379?ca=FILE&cert=FILE&key=FILE``. Credentials, where etcd asks for
    them: ``etcd://user:password@host:port``.
    """
    if url == "memory:":
        return MemoryStore()
    parts = urlsplit(url)
    if parts.scheme not in {"etcd", "etcds"} or not parts.netloc or parts.path.strip("/"):
        raise ValueError(
            f"{url!r} is not a store: write etcd://host:port[,host:port], etcds://..., or memory:"
        )
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    if set(query) - {"ca", "cert", "key"}:
        raise ValueError(f"{url!r}: only ca, cert and key may follow the question mark")
    tls = None
    if parts.scheme == "etcds":
        files = {name: Path(file).read_bytes() for name, file in query.items()}
        tls = Tls(files.get("ca"), files.get("cert"), files.get("key"))
    return EtcdStore(hosts.split(","), tls=tls, user=user, password=password)


def first_place(url: str) -> tuple[str, int] | None:
    """Host and port of a store's first endpoint; None for one in memory. For a URL that ``open_store`` takes."""
    hosts = urlsplit(url).netloc.rpartition("@")[2]
    if not hosts:
        return None
    host, _, port = hosts.split(",")[0].rpartition(":")
    return host.strip("[]"), int(port)


@asynccontextmanager
async def store_at(url: str) -> AsyncIterator[Store]:
    """A service's store while the block lasts. Raises FatalError for a ``--store`` that is none."""
    try:
        store = open_store(url)
    except (ValueError, OSError) as error:
        raise FatalError(f"--store: {error}") from error
    try:
        yield store
    finally:
        await store.close()
