"""``windward validate``: every finding with file, line and field, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from windward.cli.failures import UserError
from windward.cli.validation import line_of, validate

GOOD = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a.example.com]
  http:
  - route: [{destination: {host: a}}]
"""
BAD = GOOD.replace("route:", "rout:") + "    timeout: soon\n"


def test_good_objects_are_counted_and_nothing_is_printed_as_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "a.yaml").write_text(f"{GOOD}---\n{GOOD}")
    validate([str(tmp_path)], None, "table")
    assert capsys.readouterr() == ("", "2 objects: valid\n")
    validate([str(tmp_path)], None, "json")
    assert json.loads(capsys.readouterr().out) == []


def test_a_program_gets_a_flat_list_with_these_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    with pytest.raises(SystemExit) as caught:
        validate([str(path)], "shop", "json")
    assert caught.value.code == 1
    rows = json.loads(capsys.readouterr().out)
    assert list(rows[0]) == [
        "file", "line", "kind", "namespace", "name", "path", "severity", "code", "message", "fix",
    ]  # fmt: skip
    assert {(row["path"], row["line"]) for row in rows} >= {
        ("spec.http[0].rout", 7),
        ("spec.http[0].timeout", 8),
    }
    assert {(row["file"], row["kind"], row["namespace"], row["name"]) for row in rows} == {
        (str(path), "VirtualService", "shop", "a")
    }


def test_people_get_one_line_a_finding_and_a_sum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD + "---\n[]\n---\na: [\n")
    with pytest.raises(SystemExit):
        validate([str(path)], None, "table")
    out, said = capsys.readouterr()
    assert out == ""
    assert f"{path}:7: error: VirtualService/default/a: spec.http[0].rout: " in said
    assert "(did you mean route?)" in said
    assert f"{path}:10: error: a document must be an object" in said
    assert "not YAML" in said
    assert said.splitlines()[-1].endswith("errors in 3 objects")


def test_nothing_to_validate_is_an_error(tmp_path: Path):
    path = tmp_path / "empty.yaml"
    path.write_text("---\n---\n")
    with pytest.raises(UserError, match="no object in"):
        validate([str(path)], None, "table")


@pytest.mark.parametrize(
    ("path", "line"), [("a.b[1].c", 4), ("a.b[0]", 3), ("a.x", 2), ("z", 9), ("", 9)]
)
def test_the_line_is_that_of_the_nearest_field_around(path: str, line: int):
    assert line_of({"a": 2, "a.b": 3, "a.b[1]": 4}, path, 9) == line
