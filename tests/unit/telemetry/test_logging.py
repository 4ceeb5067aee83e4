"""Logs: one JSON object a line. In a process of its own, because the set-up is the process's."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from windward.telemetry.logging import LEVELS

PROGRAM = """
from windward.telemetry.logging import configure, get_logger
log = get_logger()
configure("sample", {level!r})
log.debug("detail.seen", n=1)
log.info("thing.done", count=2, path=__import__("pathlib").Path("/x"))
log.warning("thing.odd", text="two\\nlines")
try:
    raise ValueError("broken")
except ValueError as error:
    log.error("thing.failed", exc_info=error)
import logging
logging.getLogger("other").info("not shown")
"""


def lines(level: str) -> list[dict[str, object]]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level)],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert ended.stdout == ""
    return [json.loads(line) for line in ended.stderr.splitlines()]


def test_one_object_a_line_with_event_level_time_and_service():
    debug, done, odd, failed = lines("debug")
    assert debug["event"] == "detail.seen"
    assert done["service"] == "sample"
    assert done["level"] == "info"
    assert str(done["timestamp"]).endswith("Z")
    assert (done["count"], done["path"]) == (2, "/x")
    assert odd["text"] == "two\nlines"
    assert "broken" in json.dumps(failed["exception"])


@pytest.mark.parametrize(("level", "events"), [("info", 3), ("warning", 2), ("error", 1)])
def test_a_level_leaves_out_what_is_below(level, events):
    assert len(lines(level)) == events


def test_levels_are_the_four():
    assert list(LEVELS) == ["debug", "info", "warning", "error"]
