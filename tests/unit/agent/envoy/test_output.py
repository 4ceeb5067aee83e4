"""Envoy's output goes on to where the agent's goes, whatever that is."""

from __future__ import annotations

import os
import subprocess

from services.agent.envoy.output import Output


def test_lines_are_copied_to_the_last(tmp_path):
    with (tmp_path / "log").open("wb") as target:
        output = Output(target.fileno(), None)
        for number in range(3):
            subprocess.run(
                ["sh", "-c", f"echo {number}; echo error {number} >&2"],
                stdout=output.fd, stderr=output.fd, check=True,
            )  # fmt: skip
        output.close()
    wanted = "".join(f"{number}\nerror {number}\n" for number in range(3))
    assert (tmp_path / "log").read_text() == wanted


def test_stdout_can_be_opened_anew(tmp_path):
    """As an access log does; a socket could not."""
    with (tmp_path / "log").open("wb") as target:
        output = Output(target.fileno(), os.geteuid())
        subprocess.run(["sh", "-c", "echo hello > /dev/stdout"], stdout=output.fd, check=True)
        output.close()
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_target_that_is_gone_does_not_hold_envoy_up():
    read, write = os.pipe()
    os.close(read)
    output = Output(write, None)
    for _ in range(8):
        os.write(output.fd, b"x" * 64 * 1024)
    output.close()
    os.close(write)
