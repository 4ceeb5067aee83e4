"""Whether an Envoy was killed for memory, and what is said then."""

from __future__ import annotations

import pytest

from services.agent.envoy.memory import hint, killed_for_memory


def test_the_cgroup_counts(tmp_path):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("1:name=x:/y\n0::/pods/one\n")
    (tmp_path / "cgroup" / "pods" / "one").mkdir(parents=True)
    events = tmp_path / "cgroup" / "pods" / "one" / "memory.events"
    events.write_text("low 0\noom 4\noom_kill 3\noom_group_kill 0\n")
    read = {"proc": tmp_path / "proc", "root": tmp_path / "cgroup"}
    assert killed_for_memory(**read) == 3
    events.write_text("low 0\n")
    assert killed_for_memory(**read) == 0
    events.unlink()
    assert killed_for_memory(**read) == 0


@pytest.mark.parametrize("folder", ["pods/one", ""], ids=["its own", "a container's root"])
def test_a_cgroup_of_version_1_counts_too(tmp_path, folder):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(
        "4:cpu,memory:/pods/one\n1:name=x:/y\n0::/\n"
    )
    at = tmp_path / "cgroup" / "memory" / folder
    at.mkdir(parents=True)
    (at / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert killed_for_memory(proc=tmp_path / "proc", root=tmp_path / "cgroup") == 2


def test_this_machine_can_be_asked():
    assert killed_for_memory() >= 0


@pytest.mark.parametrize(
    ("killed", "after", "word"),
    [(False, 5, ""), (True, 1, "killed for memory"), (True, 0, "dmesg")],
)
def test_the_hint(killed, after, word):
    said = hint(killed=killed, before=0, after=after)
    assert word in said
    assert bool(said) == killed
