from __future__ import annotations

from services.agent.left import LeftMark


def test_a_clean_leave_is_known_to_the_next_start_alone(tmp_path):
    assert LeftMark(tmp_path).still_known(resumed=True)
    LeftMark(tmp_path).set()
    assert (tmp_path / "left").stat().st_mode & 0o777 == 0o600
    assert not LeftMark(tmp_path).still_known(resumed=True)
    assert LeftMark(tmp_path).still_known(resumed=True)


def test_a_start_that_resumes_nothing_takes_the_mark_too(tmp_path):
    LeftMark(tmp_path).set()
    assert not LeftMark(tmp_path).still_known(resumed=False)
    assert LeftMark(tmp_path).still_known(resumed=True)


def test_a_folder_that_is_gone_is_no_error(tmp_path):
    mark = LeftMark(tmp_path / "gone")
    mark.set()
    assert mark.still_known(resumed=True)
