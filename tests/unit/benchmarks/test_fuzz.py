"""The fuzz targets find nothing in a few hundred executions; and what they would find, the runner keeps."""

from __future__ import annotations

import json
from random import Random

import pytest

from benchmarks.fuzz import command
from benchmarks.fuzz.run import fuzz, replay, write_failures
from benchmarks.fuzz.target import Single
from benchmarks.fuzz.targets import TARGETS, target_of
from benchmarks.fuzz.trees import copied, mutate_tree
from benchmarks.fuzz.wire import Field, join, mutate_message, split

EXECUTIONS = 400


class Fragile(Single):
    """Breaks at ``x`` in a list, and has one more line for long lists."""

    modules = (json,)

    def seeds(self):
        return [["a"], ["b", "c"]]

    def mutate(self, random, chosen, other):
        return [*chosen, random.choice("abcdex")][-9:]

    def execute(self, given):
        if "x" in given:
            raise LookupError(f"x at {given.index('x')}")
        return len(given)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_finds_nothing_and_reaches_what_it_tests(name):
    found = fuzz(target_of(name), EXECUTIONS, 7)
    assert not found.failures, "\n".join(item.text for item in found.failures.values())
    assert found.executions >= EXECUTIONS
    assert found.outcomes > 3
    assert found.lines > 20


def test_one_seed_is_one_run():
    def figures(seed):
        found = fuzz(target_of("registry-consul"), 300, seed)
        return found.corpus, found.outcomes, found.lines, found.pairs

    assert figures(3) == figures(3)
    assert figures(3) != figures(4)


def test_failures_at_one_place_are_one_and_can_be_had_again(tmp_path):
    found = fuzz(Fragile(), 500, 1)
    (failure,) = found.failures.values()
    assert failure.where.startswith("LookupError at tests/unit/benchmarks/test_fuzz.py:")
    assert failure.times > 10
    (path,) = write_failures("fragile", found, tmp_path)
    assert "LookupError" in path.read_text()
    with pytest.raises(LookupError):
        replay(Fragile(), path)


def test_what_is_new_is_mutated_further():
    """Lengths are outcomes: from two inputs to every length there is."""
    found = fuzz(Fragile(), 2000, 1)
    assert found.outcomes == 9


def test_the_command_says_what_it_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "FOLDER", tmp_path)
    monkeypatch.setattr(command, "TARGETS", {"fragile": "", "sound": ""})
    sound = target_of("node")
    monkeypatch.setattr(
        command, "target_of", lambda name: Fragile() if name == "fragile" else sound
    )
    assert command.run("all", 200, 1, json=tmp_path / "out.json") == 1
    assert "LookupError at" in capsys.readouterr().out
    assert json.loads((tmp_path / "out-sound.json").read_text())["failures"] == 0
    assert command.run("sound", 20, 1) == 0
    assert command.run("nothing", 1, 1) == 2
    with pytest.raises(LookupError):
        command.run("fragile", 1, 1, tmp_path / "fragile-1.txt")


def test_messages_are_taken_apart_and_put_together():
    raw = b"\x0a\x03abc\x10\x96\x01\x22\x02\x08\x01"
    fields: list[Field] = [(1, b"abc"), (2, 150), (4, b"\x08\x01")]
    assert split(raw) == fields
    assert join(fields) == raw
    assert split(b"\x0a\x05abc") is None
    random = Random(1)
    made = [mutate_message(random, raw, raw, (b"word",)) for _ in range(300)]
    assert sum(split(item) is not None for item in made) > 150
    assert len(set(made)) > 100


def test_a_mutated_tree_leaves_the_one_it_came_from_alone():
    tree = {"a": [1, {"b": "c"}], "d": None}
    before, random = copied(tree), Random(1)
    made = [mutate_tree(random, tree, [tree], ("word",)) for _ in range(300)]
    assert tree == before
    assert len({repr(item) for item in made}) > 150
