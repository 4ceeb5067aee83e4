"""Entries: who matches which, and files that are refused whole."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.workload_api import entries as module
from services.agent.workload_api.entries import (
    LIMIT_BYTES,
    MOST_ENTRIES,
    EntriesError,
    Entry,
    load_entries,
    match,
    parse_entries,
)
from services.agent.workload_api.peer import Peer, Program

FILE = Path("/etc/windward/entries.json")


class Seen:
    """A peer as the kernel would tell it."""

    def __init__(self, uid: int, gid: int = 0, path: str | None = None, cgroup: str | None = None):
        self.uid, self.gid, self._path, self._cgroup = uid, gid, path, cgroup

    def program(self) -> Program | None:
        if self._path is None:
            return None
        status = Path(self._path).stat()
        return Program(self._path, status.st_dev, status.st_ino)

    def cgroup(self) -> str | None:
        return self._cgroup


def peer(*arguments: Any) -> Peer:
    return cast("Peer", Seen(*arguments))


def entry(account: str = "alice", uid: int = 1001, **selectors: Any) -> dict[str, Any]:
    made = {"namespace": "shop", "serviceAccount": account, "tokenFile": f"/tokens/{account}"}
    return {**made, "uid": uid, **selectors}


def parsed(*listed: Any) -> tuple[Entry, ...]:
    return parse_entries(json.dumps({"entries": listed}).encode(), FILE, "cluster.local")


def refusal(*listed: Any) -> str:
    with pytest.raises(EntriesError) as caught:
        parsed(*listed)
    assert str(FILE) in str(caught.value)
    return str(caught.value)


def account_of(entries: tuple[Entry, ...], seen: Peer) -> str | None:
    found = match(entries, seen)
    return found.service_account if found else None


def test_the_narrowest_entry_wins_and_nothing_matches_half():
    sh, cat = "/bin/sh", "/bin/cat"
    sh, cat = str(Path(sh).resolve()), str(Path(cat).resolve())
    entries = parsed(
        entry("wide"),
        entry("group", gid=5),
        entry("program", gid=5, path=sh),
        entry("unit", gid=5, path=sh, cgroup="/system.slice/a.service"),
    )
    assert account_of(entries, peer(1001, 0, sh, "/system.slice/a.service")) == "wide"
    assert account_of(entries, peer(1001, 5, cat, "/system.slice/a.service")) == "group"
    assert account_of(entries, peer(1001, 5, None, None)) == "group"
    assert account_of(entries, peer(1001, 5, sh, "/system.slice/ab.service")) == "program"
    assert account_of(entries, peer(1001, 5, sh, "/system.slice/a.service")) == "unit"
    assert account_of(entries, peer(1001, 5, sh, "/system.slice/a.service/below")) == "unit"
    assert account_of(entries, peer(1002, 5, sh, "/system.slice/a.service")) is None


def test_a_path_is_a_file_and_not_only_a_name(monkeypatch: pytest.MonkeyPatch):
    sh = str(Path("/bin/sh").resolve())
    entries = parsed(entry(path=sh))
    assert account_of(entries, peer(1001, 0, sh)) == "alice"
    status = Path("/bin/cat").stat()
    monkeypatch.setattr(Seen, "program", lambda _: Program(sh, status.st_dev, status.st_ino))
    assert account_of(entries, peer(1001, 0, sh)) is None
    gone = parsed(entry(path="/nowhere/at/all"))
    monkeypatch.setattr(Seen, "program", lambda _: Program("/nowhere/at/all", 1, 1))
    assert account_of(gone, peer(1001)) is None


SELECTORS = st.fixed_dictionaries(
    {"uid": st.sampled_from([1, 2])},
    optional={
        "gid": st.sampled_from([1, 2]),
        "path": st.sampled_from(["/a", "/b"]),
        "cgroup": st.sampled_from(["/x", "/x/y", "/z"]),
    },
)


@given(st.lists(SELECTORS, min_size=1, max_size=5))
def test_in_a_file_that_is_accepted_one_answer_is_the_narrowest(chosen: list[dict[str, Any]]):
    try:
        entries = parsed(*(entry(f"a{at}", **item) for at, item in enumerate(chosen)))
    except EntriesError:
        return
    programs = {"/a": Program("/a", 1, 1), "/b": Program("/b", 1, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Seen, "program", lambda seen: programs.get(seen._path or ""))
        patch.setattr(module, "_runs", lambda seen, path: seen.program() == programs[path])
        for uid, gid, path, cgroup in product((1, 2), (1, 2), ("/a", "/b"), ("/x", "/x/y", "/z")):
            seen = peer(uid, gid, path, cgroup)
            sizes = sorted(len(item.selectors()) for item in entries if item.matches(seen))
            assert len(sizes) == len(set(sizes))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({"gid": 1}, {"path": "/bin/a"}),
        ({"gid": 1}, {"path": "/bin/a", "cgroup": "/a"}),
        ({"cgroup": "/a"}, {"cgroup": "/a/b"}),
    ],
)
def test_two_entries_that_may_both_match_are_refused(one: dict[str, Any], other: dict[str, Any]):
    assert "entries[0] and entries[1] may both match" in refusal(
        entry(**one), entry("bob", **other)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"gid": 1}),
        ({"gid": 1}, {"gid": 2}),
        ({"gid": 1, "path": "/bin/a"}, {"gid": 1, "path": "/bin/b"}),
        ({"cgroup": "/a"}, {"cgroup": "/ab"}),
        ({}, {"uid": 1002}),
    ],
)
def test_entries_that_are_apart_or_nested_are_not(one: dict[str, Any], other: dict[str, Any]):
    assert len(parsed(entry(**one), entry("bob", **other))) == 2


def test_several_entries_may_be_one_identity_but_a_token_is_for_one():
    assert len(parsed(entry(uid=1), entry(uid=2))) == 2
    assert "a token is for one" in refusal(entry(uid=1), entry("bob", 2, tokenFile="/tokens/alice"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"uid": None}, "uid"),
        ({"uid": -1}, "uid"),
        ({"uid": 65534}, "every unknown user"),
        ({"uid": "1001"}, "uid"),
        ({"gid": 2**32}, "gid"),
        ({"namespace": "a/b"}, "cannot stand in a SPIFFE id"),
        ({"serviceAccount": ""}, "cannot stand in a SPIFFE id"),
        ({"path": "bin/a"}, "path: must be a plain absolute path"),
        ({"path": "/bin/../a"}, "path: must be a plain absolute path"),
        ({"cgroup": "/a/"}, "cgroup: must be a plain absolute path"),
        ({"cgroup": "/"}, "holds every process"),
        ({"tokenFile": "token"}, "tokenFile: must be a plain absolute path"),
        ({"hint": "x" * 257}, "hint"),
        ({"gids": 5}, "gids"),
    ],
)
def test_a_wrong_entry_is_named(changed: dict[str, Any], reason: str):
    message = refusal(entry("bob", 7), {**entry(), **changed})
    assert "entries[1]" in message
    assert reason in message


def test_what_is_missing_is_named():
    whole = entry()
    for name in whole:
        assert name in refusal({key: value for key, value in whole.items() if key != name})


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"entries": []}', b'{"entries": {}}', b"\xff"]
)
def test_a_file_without_entries(text: bytes):
    with pytest.raises(EntriesError, match=str(FILE)):
        parse_entries(text, FILE, "cluster.local")


def test_the_file_is_bounded(tmp_path: Path):
    assert str(MOST_ENTRIES) in refusal(*(entry(uid=at) for at in range(MOST_ENTRIES + 1)))
    assert len(parsed(*(entry(uid=at) for at in range(MOST_ENTRIES)))) == MOST_ENTRIES
    file = tmp_path / "entries.json"
    file.write_bytes(b" " * (LIMIT_BYTES + 1))
    with pytest.raises(EntriesError, match=str(LIMIT_BYTES)):
        load_entries(file, "cluster.local")
    with pytest.raises(EntriesError, match="No such file"):
        load_entries(tmp_path / "none.json", "cluster.local")


def test_yaml_and_toml_say_the_same(tmp_path: Path):
    yaml, toml = tmp_path / "a.yaml", tmp_path / "a.toml"
    yaml.write_text(
        "entries:\n- {namespace: shop, serviceAccount: alice, tokenFile: /tokens/alice, uid: 1001}\n"
    )
    toml.write_text(
        '[[entries]]\nnamespace = "shop"\nserviceAccount = "alice"\ntokenFile = "/tokens/alice"\nuid = 1001\n'
    )
    assert (
        load_entries(yaml, "cluster.local")
        == load_entries(toml, "cluster.local")
        == parsed(entry())
    )
