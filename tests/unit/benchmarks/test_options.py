import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import SCENARIOS, parser, wish

ROOT = Path(__file__).resolve().parents[3]


def test_every_xds_scenario_is_offered_and_explained():
    from benchmarks.xds.run import SCENARIOS as XDS

    assert set(XDS) <= set(SCENARIOS)
    text = parser().format_help()
    assert all(f"\n{name} " in text for name in XDS)


def test_what_is_asked_for_reaches_the_scenario():
    words = "xds-churn --services 5 --streams 7 --scopes 3 --ports 2 --rate 9 --seconds 4 --plaintext --sotw"
    asked = wish(parser().parse_args(words.split()))
    assert (asked.services, asked.streams, asked.scopes, asked.ports) == (5, 7, 3, 2)
    assert (asked.rate, asked.seconds, asked.plaintext, asked.sotw) == (9, 4, True, True)


@pytest.mark.parametrize(
    "words", [["xds-endpoint", "--services", "0"], ["xds-endpoint", "--streams", "x"]]
)
def test_a_number_that_is_none_is_refused(words):
    with pytest.raises(SystemExit):
        parser().parse_args(words)


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "xds-endpoint", "--against", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "not a checkout of Windward" in done.stderr


def test_a_result_is_one_flat_object_with_faults_in_words(tmp_path):
    from benchmarks.xds.run import show
    from benchmarks.xds.scene import Wish, flat

    made = flat("xds-endpoint", Wish(), {"p50_ms": 1.0, "faults": {"malformed": 2, "unasked": 1}})
    show(made, tmp_path / "deep" / "x.json")
    read = json.loads((tmp_path / "deep" / "x.json").read_text())
    assert read == made
    assert not any(isinstance(value, (dict, list)) for value in read.values())
    assert (read["faults"], read["faults_seen"]) == (3, "malformed:2 unasked:1")


def test_a_checkout_is_named_by_its_commit(tmp_path):
    from benchmarks.xds.run import revision

    def git(*words):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x", *words]
        subprocess.run(command, check=True, capture_output=True)

    assert revision(tmp_path) == ""
    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "one")
    clean = revision(tmp_path)
    assert len(clean) >= 7
    assert clean.isalnum()
    (tmp_path / "file").write_text("two")
    assert revision(tmp_path) == clean + "+"
