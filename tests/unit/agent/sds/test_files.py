"""Secrets of files: which files a name stands for, and that nothing is made of files that are no good."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from services.agent.sds import files
from services.agent.sds.files import (
    FileSecretError,
    PairFiles,
    RootsFile,
    mounted,
    parse_name,
    read_secret,
)
from services.agent.sds.secret import pair_secret, roots_secret
from tests.unit.agent.sds.certificates import pair, put


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("file-cert:/a/c.pem~/b/k.pem", PairFiles(Path("/a/c.pem"), Path("/b/k.pem"))),
        ("file-root:/a/r.pem", RootsFile(Path("/a/r.pem"))),
        ("file-cert:/a/c.pem", None),
        ("file-cert:~/b/k.pem", None),
        ("file-cert:/a~/b~/c", None),
        ("file-root:", None),
        ("default", None),
        ("ROOTCA", None),
        ("kubernetes://secret", None),
    ],
)
def test_names(name, wanted):
    assert parse_name(name) == wanted


def test_the_systems_roots_are_the_first_that_are_there(tmp_path):
    here = tmp_path / "roots.pem"
    places = (tmp_path / "nowhere", here)
    assert parse_name("file-root:system", places) == RootsFile(places[0])
    here.write_bytes(b"")
    assert parse_name("file-root:system", places) == RootsFile(here)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_pair_that_belongs_together_is_a_secret(tmp_path, kind):
    chain, key = pair(key=rsa.generate_private_key(65537, 2048) if kind == "rsa" else None)
    name = put(tmp_path, chain, key)
    found = parse_name(name)
    assert found is not None
    assert read_secret(name, found) == pair_secret(name, chain, key)


def test_a_pair_that_does_not_belong_together_is_none(tmp_path):
    name = put(tmp_path, pair()[0], pair()[1])
    found = parse_name(name)
    assert found is not None
    with pytest.raises(FileSecretError, match=r"key.pem: the key does not belong .*cert.pem"):
        read_secret(name, found)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("cert.pem", b"", "cert.pem: no readable certificate"),
        ("key.pem", b"", "key.pem: not an unencrypted private key"),
        ("key.pem", b"x" * 5_000_000, "longer than"),
        ("key.pem", None, "No such file"),
    ],
)
def test_files_that_are_no_good_say_which_and_why(tmp_path, file, content, reason):
    name = put(tmp_path, *pair())
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    found = parse_name(name)
    assert found is not None
    with pytest.raises(FileSecretError, match=reason):
        read_secret(name, found)


def test_roots_that_cannot_be_read_are_left_out_and_told_of(tmp_path, monkeypatch):
    told: list[int] = []

    class Log:
        def warning(self, event, *, certificate, **_):
            assert event == "secret.root_skipped"
            told.append(certificate)

    monkeypatch.setattr(files, "log", Log())
    first, second = pair("a")[0], pair("b")[0]
    bad = b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"
    path = tmp_path / "roots.pem"
    path.write_bytes(b"# some words\n" + first + bad + second)
    assert read_secret("r", RootsFile(path)) == roots_secret("r", first + second)
    assert told == [2]
    path.write_bytes(bad)
    with pytest.raises(FileSecretError, match="no readable certificate"):
        read_secret("r", RootsFile(path))


def test_a_mount_counts_when_it_is_complete_and_the_first_one_wins(tmp_path):
    folders = (tmp_path / "one", tmp_path / "two")
    for folder in folders:
        folder.mkdir()
        (folder / "cert-chain.pem").touch()
        (folder / "key.pem").touch()
    assert mounted(folders) == {}
    for folder in reversed(folders):
        (folder / "root-cert.pem").touch()
        assert mounted(folders) == {
            "default": PairFiles(folder / "cert-chain.pem", folder / "key.pem"),
            "ROOTCA": RootsFile(folder / "root-cert.pem"),
        }
