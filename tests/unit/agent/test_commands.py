"""The program's first word: a command, or the agent itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from services.agent.commands import COMMANDS, main


def test_the_first_word_names_a_command_which_gets_the_rest(monkeypatch):
    given: list[Sequence[str]] = []

    def command(argv: Sequence[str]) -> int:
        given.append(argv)
        return 7

    monkeypatch.setitem(COMMANDS, "netfilter", command)
    monkeypatch.setattr(sys, "argv", ["windward-agent", "netfilter", "check", "-b", "*"])
    with pytest.raises(SystemExit, match="7"):
        main()
    assert given == [["check", "-b", "*"]]


@pytest.mark.parametrize("argv", [["--help"], ["--version"]])
def test_flags_alone_are_the_agents(argv, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["windward-agent", *argv])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "windward-agent" in capsys.readouterr().out


def test_what_is_neither_is_refused_by_the_agent(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["windward-agent", "netfitler"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "netfitler" in capsys.readouterr().err
