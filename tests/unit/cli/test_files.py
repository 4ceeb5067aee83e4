"""What -f names: files, folders, standard input; what cannot be read is one line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from windward.cli import files
from windward.cli.failures import UserError


def test_a_folder_is_its_files_in_name_order_and_nothing_else(tmp_path: Path):
    for name in ("b.yaml", "a.yml", "c.json", "notes.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "d.yaml").mkdir()
    names = [Path(name).name for name, _ in files.read([str(tmp_path)])]
    assert names == ["a.yml", "b.yaml", "c.json"]


def test_a_file_is_read_whatever_it_is_called_and_a_dash_is_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "plain"
    path.write_text("a")
    monkeypatch.setattr(sys, "stdin", io.StringIO("b"))
    assert list(files.read([str(path), "-"])) == [(str(path), "a"), ("-", "b")]


def test_what_cannot_be_read_says_which_file_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    binary, large = tmp_path / "binary.yaml", tmp_path / "large.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    large.write_bytes(b"#" * 20)
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(files, "LIMIT_BYTES", 10)
    for name, said in (
        ("nowhere.yaml", "No such file"),
        ("binary.yaml", "not UTF-8"),
        ("large.yaml", "larger than"),
        ("empty", "no .yaml, .yml or .json file"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            list(files.read([str(tmp_path / name)]))
        assert name in str(caught.value)
