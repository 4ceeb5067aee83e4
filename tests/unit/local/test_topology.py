"""A topology file: strictly read, its faults named with the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from windward.local.errors import LocalMeshError
from windward.local.topology import config_files, load_topology

ONE = "{name: a, group: a, service_account: a, port: 80, command: [x]}"


def written(folder: Path, text: str) -> Path:
    path = folder / "topology.yaml"
    path.write_text(text)
    return path


def test_names_are_the_workloads_in_order_then_the_gateway(tmp_path: Path):
    gateway = "gateway: {name: edge, service_account: edge, port: 80, labels: {}}\n"
    path = written(tmp_path, f"workloads: [{ONE}]\nconfig: mesh\n{gateway}")
    topology = load_topology(path)
    assert topology.names == ("a", "edge")
    (tmp_path / "mesh").mkdir()
    for name in ("b.yaml", "a.yaml", "c.txt"):
        (tmp_path / "mesh" / name).touch()
    assert [file.name for file in config_files(path, topology)] == ["a.yaml", "b.yaml"]


def test_without_a_folder_nothing_is_applied(tmp_path: Path):
    path = written(tmp_path, f"workloads: [{ONE}]")
    assert config_files(path, load_topology(path)) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workloads: [", "while parsing"),
        ("workloads: [{}]", "missing required field"),
        (f"workloads: [{ONE}]\ncolour: red", "unknown field `colour`"),
        (f"workloads: [{ONE}, {ONE}]", "more than one workload is named a"),
        ("[]", "Expected `object`"),
    ],
)
def test_faults_name_the_file(tmp_path: Path, text: str, said: str):
    path = written(tmp_path, text)
    with pytest.raises(LocalMeshError, match=said) as caught:
        load_topology(path)
    assert str(path) in str(caught.value)
    with pytest.raises(LocalMeshError, match="No such file"):
        load_topology(tmp_path / "nowhere.yaml")
