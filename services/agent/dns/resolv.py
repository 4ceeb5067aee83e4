"""The machine's own resolvers, as resolv.conf(5) names them; read again when the file has changed.

resolv.conf -> Resolvers(servers, search)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DNS_PORT = 53
MOST_SERVERS = 3
MOST_SEARCH = 32
LOOK_AGAIN_S = 5.0
LARGEST_FILE_BYTES = 64 * 1024

Server = tuple[str, int]
"""Address and port."""


@dataclass(frozen=True, slots=True)
class Resolvers:
    servers: tuple[Server, ...] = ()
    search: tuple[str, ...] = ()


def parse_resolv_conf(text: str) -> Resolvers:
    """As libc reads it: three name servers, the last ``search`` or ``domain`` line holds, unusable lines mean nothing."""
    servers: list[Server] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        match words:
            case ["nameserver", address, *_] if _is_address(address):
                servers.append((address, DNS_PORT))
            case ["search" | "domain", *domains]:
                search = tuple(domain.strip(".") for domain in domains if domain.strip("."))
    return Resolvers(tuple(dict.fromkeys(servers))[:MOST_SERVERS], search[:MOST_SEARCH])


class ResolvConf:
    """A resolv.conf on disk. An unreadable file is one without servers: what was read last holds on."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._looked = clock()
        self._stamp = self._stamped()
        self._current = self._read() or Resolvers()

    def current(self) -> Resolvers:
        """The resolvers now; the file is looked at every LOOK_AGAIN_S at most."""
        now = self._clock()
        if now - self._looked >= LOOK_AGAIN_S:
            self._looked = now
            stamp = self._stamped()
            if stamp != self._stamp:
                self._stamp = stamp
                self._current = self._read() or self._current
        return self._current

    def _stamped(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self) -> Resolvers | None:
        try:
            with self._path.open(encoding="utf-8", errors="replace") as file:
                return parse_resolv_conf(file.read(LARGEST_FILE_BYTES))
        except OSError:
            return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
