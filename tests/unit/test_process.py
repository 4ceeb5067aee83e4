"""Processes: exit statuses, one line on stderr, SIGTERM that drains, ports told. Each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import pytest

from windward.process import Lifecycle

PROGRAM = """
import asyncio, sys
import msgspec
from windward.process import FatalError, Lifecycle, run

class Settings(msgspec.Struct, frozen=True):
    outcome: str = "stop"
    log_level: str = "info"
    ports_file: str = ""
    otlp_endpoint: str = ""

async def fail():
    raise FatalError("the port is in use; choose another one")

async def break_():
    raise RuntimeError("a defect")

async def serve(settings, lifecycle):
    if settings.outcome == "fatal":
        await fail()
    if settings.outcome in ("grouped", "mixed"):
        async with asyncio.TaskGroup() as outer:
            async with asyncio.TaskGroup() as inner:
                inner.create_task(fail())
                if settings.outcome == "mixed":
                    inner.create_task(break_())
    lifecycle.listening(grpc=1234, metrics=5678)
    print("serving", flush=True)
    await lifecycle.stopping.wait()
    print("drained", flush=True)

sys.exit(run("windward-sample", Settings, serve, description="A sample."))
"""


def finish(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *argv],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_with_success(tmp_path, number):
    ports = tmp_path / "ports.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, "--ports-file", str(ports),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"serving\n"
    assert json.loads(ports.read_text()) == {"grpc": 1234, "metrics": 5678}
    process.send_signal(number)
    rest, _ = await process.communicate()
    assert rest == b"drained\n"
    assert process.returncode == 0


@pytest.mark.parametrize("outcome", ["fatal", "grouped"])
def test_what_cannot_be_mended_by_waiting_is_one_line(outcome):
    ended = finish("--outcome", outcome)
    assert ended.returncode == 1
    assert ended.stderr == "windward-sample: the port is in use; choose another one\n"


def test_a_defect_beside_a_fatal_error_is_not_hidden():
    ended = finish("--outcome", "mixed")
    assert ended.returncode == 1
    assert "RuntimeError: a defect" in ended.stderr


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--nothing", "1"], "windward-sample: unrecognized arguments: --nothing 1"),
        (["--log-level", "loud"], "windward-sample: --log-level loud: one of debug, info"),
    ],
)
def test_bad_settings_are_one_line_and_status_2(argv, said):
    ended = finish(*argv)
    assert ended.returncode == 2
    assert ended.stderr.startswith(said)
    assert ended.stderr.count("\n") == 1


def test_settings_are_read_without_grpc():
    """A mistake on the command line is told at once: nothing heavy is loaded before."""
    code = "import sys; import windward.process, windward.settings; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == 0


async def test_ports_are_told_whole_or_not_at_all(tmp_path):
    file = tmp_path / "ports.json"
    lifecycle = Lifecycle(str(file))
    lifecycle.listening(status=1)
    lifecycle.listening(status=2)
    assert json.loads(file.read_text()) == {"status": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["ports.json"]


async def test_nobody_asked_for_ports(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Lifecycle().listening(status=1)
    assert list(tmp_path.iterdir()) == []
