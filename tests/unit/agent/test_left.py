from __future__ import annotations

from services.agent.left import LeftMark


def test_a_clean_leave_is_known_to_the_next_start_alone(tmp_path):
    assert not LeftMark(tmp_path).take()
    LeftMark(tmp_path).set()
    assert (tmp_path / "left").stat().st_mode & 0o777 == 0o600
    assert LeftMark(tmp_path).take()
    assert not LeftMark(tmp_path).take()


def test_a_folder_that_is_gone_is_no_error(tmp_path):
    mark = LeftMark(tmp_path / "gone")
    mark.set()
    assert not mark.take()
