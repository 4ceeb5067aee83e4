import shutil

import pytest

from benchmarks.fleet.build import CannotBuild, fleet_binary, reason


def test_without_a_compiler_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(CannotBuild, match="apt-get install gcc"):
        fleet_binary(tmp_path)


def test_missing_headers_are_named_by_their_package():
    said = "tls.c:17:10: fatal error: openssl/err.h: No such file or directory"
    assert reason(said) == "the fleet needs OpenSSL's headers: apt-get install libssl-dev"


def test_another_error_of_the_compiler_is_its_first_line():
    said = "table.c: In function 'x':\ntable.c:9:1: error: expected ';'\nmore\n"
    assert reason(said) == "the fleet does not compile: table.c:9:1: error: expected ';'"


def test_it_is_compiled_once(tmp_path):
    first = fleet_binary(tmp_path, tls=False)
    made = first.stat().st_mtime_ns
    assert fleet_binary(tmp_path, tls=False) == first
    assert first.stat().st_mtime_ns == made
    assert [file.name for file in tmp_path.iterdir()] == [first.name]
