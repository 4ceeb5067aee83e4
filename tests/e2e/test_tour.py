"""The README's tour: every command in it is run, in order, against a mesh that is up."""

from __future__ import annotations

import asyncio
import os
import re
import shutil

import pytest

from tests.e2e.shop import ROOT, Shop

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]


def tour() -> list[tuple[str, str]]:
    """(command, what its output must hold): lines ``$ command`` and the ``# ->`` behind them, of the tour's blocks."""
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## A tour in ten minutes") :]
    section = section[: section.index("\n## ", 5)]
    commands = []
    for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if line.startswith("$ "):
                command, _, expected = line[2:].partition("  # -> ")
                commands.append((command.strip(), expected.strip()))
    return commands


async def test_every_command_of_the_tour_does_what_it_says(shop: Shop, tmp_path):
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    environment = {
        **os.environ,
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "WINDWARD_CONTEXT": str(shop.mesh.context_file),
    }
    commands = tour()
    assert len(commands) >= 10
    for written, expected in commands:
        command = written.replace("http://127.0.0.1:8080", shop.mesh.gateway_url)
        # The gateway's forwarder runs in this process: the command must not block it.
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            command,
            cwd=tmp_path,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 30)
        said = output.decode()
        assert expected in said, f"{command}\nsaid: {said}\nexpected: {expected}"
        if "exit" not in command and "error" not in expected:
            assert process.returncode == 0, f"{command}: {said}"
