"""Which process is which workload: entries of selectors, and the one that a peer matches.

    entries:
    - namespace: shop                # the identity: spiffe://TRUST-DOMAIN/ns/shop/sa/reviews
      serviceAccount: reviews
      tokenFile: /etc/windward/tokens/reviews    # its own join token, 0600
      uid: 1001                      # required; a user of its own is what really separates workloads
      gid: 1001                      # and these where they are given
      path: /usr/bin/reviews         # the very file, not one of the same name in another mount namespace
      cgroup: /system.slice/reviews.service      # it or below

A peer is what the entry with the most selectors that match says. Two entries that might both match one process without
one being the narrower are refused, so there is always one answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from services.agent.workload_api.peer import Peer
from windward.identity.spiffe_id import SpiffeId, SpiffeIdError, workload_id

LIMIT_BYTES = 1024 * 1024
MOST_ENTRIES = 1000
NOBODY = 65534
HIGHEST_ID = 2**32 - 2


class EntriesError(ValueError):
    """The file of entries cannot be used; says which entry and why."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    namespace: str
    service_account: str
    token_file: str
    uid: Annotated[int, Meta(ge=0, le=HIGHEST_ID)]
    gid: Annotated[int, Meta(ge=0, le=HIGHEST_ID)] | None = None
    path: str | None = None
    cgroup: str | None = None
    hint: Annotated[str, Meta(max_length=256)] = ""

    def selectors(self) -> dict[str, int | str]:
        """Name -> value of those that are given."""
        given = {"uid": self.uid, "gid": self.gid, "path": self.path, "cgroup": self.cgroup}
        return {name: value for name, value in given.items() if value is not None}

    def matches(self, peer: Peer) -> bool:
        return (
            peer.uid == self.uid
            and (self.gid is None or peer.gid == self.gid)
            and (self.path is None or _runs(peer, self.path))
            and (self.cgroup is None or _within(peer.cgroup(), self.cgroup))
        )

    def identity(self, trust_domain: str) -> SpiffeId:
        return workload_id(trust_domain, self.namespace, self.service_account)


def match(entries: Iterable[Entry], peer: Peer) -> Entry | None:
    """The narrowest entry that a peer matches; None where there is none."""
    found = [entry for entry in entries if entry.matches(peer)]
    return max(found, key=lambda entry: len(entry.selectors()), default=None)


def load_entries(file: Path, trust_domain: str) -> tuple[Entry, ...]:
    """The entries of a JSON, YAML or TOML file. Raises EntriesError."""
    try:
        with file.open("rb") as opened:
            text = opened.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise EntriesError(f"{file}: {error.strerror}") from error
    if len(text) > LIMIT_BYTES:
        raise EntriesError(f"{file}: larger than {LIMIT_BYTES} bytes")
    return parse_entries(text, file, trust_domain)


def parse_entries(text: bytes, file: Path, trust_domain: str) -> tuple[Entry, ...]:
    """Raises EntriesError; ``file`` tells the format by its suffix."""
    try:
        content = _decoded(file.suffix, text)
    except Exception as error:  # three formats, three families of errors
        raise EntriesError(f"{file}: {' '.join(str(error).split())}") from error
    listed = content.get("entries") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed or set(content) != {"entries"}:
        raise EntriesError(f"{file}: must have one key, entries, with a list of at least one entry")
    if len(listed) > MOST_ENTRIES:
        raise EntriesError(f"{file}: has {len(listed)} entries; at most {MOST_ENTRIES} are allowed")
    entries = tuple(
        _entry(item, f"{file}: entries[{at}]", trust_domain) for at, item in enumerate(listed)
    )
    _check_unambiguous(entries, file)
    return entries


def _decoded(suffix: str, text: bytes) -> Any:
    if suffix == ".toml":
        import tomllib

        return tomllib.loads(text.decode())
    if suffix == ".json":
        return msgspec.json.decode(text)
    import yaml

    return yaml.safe_load(text)


def _entry(item: Any, where: str, trust_domain: str) -> Entry:
    try:
        entry = msgspec.convert(item, Entry)
        entry.identity(trust_domain)
    except (msgspec.ValidationError, SpiffeIdError) as error:
        raise EntriesError(f"{where}: {error}") from error
    if entry.uid == NOBODY:
        raise EntriesError(
            f"{where}.uid: {NOBODY} stands for every unknown user; give the workload one of its own"
        )
    for name, value in (
        ("path", entry.path),
        ("cgroup", entry.cgroup),
        ("tokenFile", entry.token_file),
    ):
        if value is not None and (not value.startswith("/") or os.path.normpath(value) != value):
            raise EntriesError(f"{where}.{name}: must be a plain absolute path, is {value!r}")
    if entry.cgroup == "/":
        raise EntriesError(f"{where}.cgroup: / holds every process; leave it out or name a unit")
    return entry


def _check_unambiguous(entries: Sequence[Entry], file: Path) -> None:
    tokens: dict[str, tuple[str, str]] = {}
    for entry in entries:
        owner = (entry.namespace, entry.service_account)
        if tokens.setdefault(entry.token_file, owner) != owner:
            raise EntriesError(
                f"{file}: two identities share {entry.token_file}: a token is for one"
            )
    of_user: dict[int, list[tuple[int, Entry]]] = {}
    for at, entry in enumerate(entries):
        of_user.setdefault(entry.uid, []).append((at, entry))
    for listed in of_user.values():
        for (first, one), (second, other) in combinations(listed, 2):
            if _may_tie(one.selectors(), other.selectors()):
                raise EntriesError(
                    f"{file}: entries[{first}] and entries[{second}] may both match one process, and neither is "
                    "the narrower: give one of them all selectors of the other, and one more"
                )


def _may_tie(one: dict[str, int | str], other: dict[str, int | str]) -> bool:
    """Whether some process might match both, without either set of selectors holding all of the other and more."""
    for name in one.keys() & other.keys():
        mine, its = one[name], other[name]
        nested = name == "cgroup" and (_within(str(mine), str(its)) or _within(str(its), str(mine)))
        if mine != its and not nested:
            return False
    shared = sum(other.get(name) == value for name, value in one.items())
    return not shared == min(len(one), len(other)) < max(len(one), len(other))


def _runs(peer: Peer, path: str) -> bool:
    """Whether it runs this file: by name and by inode, for a mount namespace of its own may give any file any name."""
    program = peer.program()
    if program is None or program.path != path:
        return False
    try:
        status = Path(path).stat()
    except OSError:
        return False
    return (program.device, program.inode) == (status.st_dev, status.st_ino)


def _within(place: str | None, cgroup: str) -> bool:
    return place is not None and (place == cgroup or place.startswith(cgroup + "/"))
