import pytest

from benchmarks.route_edits import EDITS, edit_text, rows, write_topology
from windward.config.document import parse_documents
from windward.local.topology import config_files, load_topology


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_valid_configuration_with_the_weights_asked_for(edit):
    made = {}
    for document in parse_documents(edit_text(edit), "-"):
        assert document.findings == ()
        assert document.raw is not None
        made[document.raw["kind"]] = document.raw["spec"]
    weights = {}
    for part in made["VirtualService"]["http"][0]["route"]:
        subset = part["destination"].get("subset", "other")
        weights[subset] = part["weight"]
    assert weights == edit
    subsets = [item["name"] for item in made["DestinationRule"]["subsets"]]
    assert subsets == [name for name in edit if name != "other"]
    assert ("ServiceEntry" in made) == ("other" in edit)


def test_edits_take_away_and_bring_every_destination():
    gone = [
        set(before) - set(after) for before, after in zip(EDITS, EDITS[1:] + EDITS[:1], strict=True)
    ]
    come = [
        set(after) - set(before) for before, after in zip(EDITS, EDITS[1:] + EDITS[:1], strict=True)
    ]
    assert set().union(*gone) == set().union(*come) == {"v1", "v2", "other"}


def test_the_mesh_is_one(tmp_path):
    path = write_topology(tmp_path)
    topology = load_topology(path)
    assert topology.names == ("v1", "v2", "other", "gateway")
    assert len(config_files(path, topology)) == 1


def test_one_failed_request_is_too_many():
    figures = {"edits": 20, "requests_per_s": 500, "failed": 0}
    assert rows(figures)[0].held
    assert not rows(figures | {"failed": 1})[0].held
