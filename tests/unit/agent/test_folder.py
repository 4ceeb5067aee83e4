"""An agent works in its state folder, and where nothing can be written there, elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.agent.folder import working_folder


@pytest.fixture(autouse=True)
def _back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    at = tmp_path / "state"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,ro", "none", str(at)], check=True)
    yield at
    subprocess.run(["umount", str(at)], check=True)


def test_the_state_folder_is_made_and_entered(tmp_path):
    with working_folder("a/b") as folder:
        assert folder == Path.cwd() == tmp_path / "a" / "b"
        assert folder.stat().st_mode & 0o777 == 0o711


@pytest.mark.root
def test_on_a_read_only_disk_another_one_is_entered_that_goes_with_the_agent(read_only, tmp_path):
    with working_folder(str(read_only)) as folder:
        passing = Path.cwd()
        assert folder == read_only
        assert passing != read_only
        assert passing.stat().st_mode & 0o777 == 0o711
        (passing / "socket").touch()
    assert not passing.exists()


def test_a_folder_that_cannot_be_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), working_folder("file/state"):
        pass
