"""Running laws by the thousand: which seeds break one, and how short a history does."""

from __future__ import annotations

import json

from benchmarks import laws


def fragile(seeds, steps):
    """Broken by every fifth seed, in histories of 80 steps and more."""
    assert not any(seed % 5 == 0 and steps >= 80 for seed in seeds), "it goes back"


def test_seeds_that_break_a_law_are_counted_and_told(capsys):
    found = laws.try_law("fragile", fragile, 120, 1)
    assert (found["examples"], found["broken"], found["steps"]) == (120, 24, 500)
    said = capsys.readouterr().out.splitlines()
    told = [line for line in said if line.startswith("seed ")]
    assert told[0] == "seed 5, 80 steps: AssertionError: it goes back"
    assert len(told) == 5


def test_the_command_fails_when_one_law_does(tmp_path, monkeypatch):
    monkeypatch.setattr(laws, "LAWS", {"fragile": fragile, "sound": lambda seeds, steps: None})
    assert laws.run("all", 20, 1, tmp_path / "out.json") == 1
    assert json.loads((tmp_path / "out-fragile.json").read_text())["broken"] == 4
    assert json.loads((tmp_path / "out-sound.json").read_text())["broken"] == 0
    assert laws.run("sound", 20, 1, tmp_path / "one.json") == 0
    assert (tmp_path / "one.json").exists()
    assert laws.run("nothing", 1, 1) == 2
