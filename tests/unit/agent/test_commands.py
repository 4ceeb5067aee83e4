"""The agent's commands: what is run for which word, and that a quick one loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

from services.agent import commands


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from services.agent.commands import main; sys.argv[0] = 'windward-agent'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("argv", "module", "rest"),
    [
        ([], "main", []),
        (["--help"], "main", ["--help"]),
        (["run", "--address", "x", "--", "cmd"], "main", ["run", "--address", "x", "--", "cmd"]),
        (["wait", "--timeout-s", "1"], "wait", ["--timeout-s", "1"]),
        (["netfilter", "check"], "netfilter.command", ["check"]),
        (["node", "--help"], "workload_api.node", ["--help"]),
    ],
)
def test_each_word_has_its_module(monkeypatch, argv, module, rest):
    seen: list[object] = []

    def run_there(words):
        seen.extend(words)
        return 7

    monkeypatch.setattr(sys, "argv", ["windward-agent", *argv])
    monkeypatch.setattr(import_module(f"services.agent.{module}"), "main", run_there)
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 7
    assert seen == rest


def test_an_unknown_word_is_told_with_those_that_are_known():
    done = run("walk")
    assert done.returncode == 2
    assert "no command 'walk'" in done.stderr
    assert all(name in done.stderr for name in commands.COMMANDS)


def test_run_needs_something_to_run():
    assert (done := run("run")).returncode == 2
    assert "windward-agent run [flags] -- CMD" in done.stderr


def test_help_says_what_each_word_does():
    said = " ".join(run("--help").stdout.split())
    assert all(f"`{name}`:" in said for name in ("wait", "node", "netfilter"))
    assert "run [flags] -- CMD`" in said
    done = run("run", "--help")
    assert (done.returncode, "-- CMD: the sidecar" in done.stdout) == (0, True)


def test_waiting_loads_nothing_heavy():
    code = (
        "import sys; import services.agent.commands, services.agent.wait\n"
        "print([n for n in ('grpc', 'cryptography', 'google', 'structlog', 'asyncio') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_proxy_config_says_of_other_settings_is_in_force():
    needed = [
        "citadel-address",
        "citadel-mtls-address",
        "trust-bundle-file",
        "token-file",
        "state-dir",
        "pilot-address",
        "namespace",
        "service-account",
        "workload-name",
        "address",
    ]
    given = [word for name in needed for word in (f"--{name}", "x")]
    config = '{"concurrency": 3, "terminationDrainDuration": "9s"}'
    done = run(*given, "--proxy-config", config, "--drain-time", "4s", "--print-config")
    shown = json.loads(done.stdout)
    assert (shown["concurrency"], shown["drain_time"]) == (3, 4.0)
