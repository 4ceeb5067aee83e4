"""``apply`` before it asks anybody: nothing is sent that cannot be taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from windward.api.config.v1 import config_pb2
from windward.cli import objects
from windward.cli.failures import UserError
from windward.rpc.server import MESSAGE_LIMIT_BYTES

OBJECT = (
    "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a, annotations: {n: %s}}\n"
)


def applied(folder: Path, text: str) -> None:
    path = folder / "a.yaml"
    path.write_text(text)
    objects.apply([str(path)], None, "", "table", str(folder / "no-context"))


def test_what_is_no_yaml_is_refused_without_a_mesh(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        applied(tmp_path, "a: [")
    assert "not YAML" in capsys.readouterr().err
    with pytest.raises(UserError, match="no object in"):
        applied(tmp_path, "---\n")


def test_more_than_one_message_holds_is_refused_with_both_sizes(tmp_path: Path):
    with pytest.raises(UserError, match=r"1 objects? of \d\.\d MiB at once: at most 4 MiB"):
        applied(tmp_path, OBJECT % ("x" * MESSAGE_LIMIT_BYTES))


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200_000, "2d")]
)
def test_ages_as_kubectl_says_them(seconds: int, said: str):
    item = config_pb2.Object()
    item.created_at.FromDatetime(datetime.now(UTC) - timedelta(seconds=seconds))
    assert objects.age(item) == said


def test_an_object_is_shown_as_written_with_what_the_store_knows():
    item = config_pb2.Object(
        ref=config_pb2.ObjectRef(namespace="shop", name="a"),
        json=b'{"kind": "Gateway", "metadata": {"name": "a"}, "spec": {}}',
        generation=3,
        revision=17,
    )
    assert objects.object_data(item) == {
        "kind": "Gateway",
        "metadata": {"name": "a", "namespace": "shop", "generation": 3, "resourceVersion": "17"},
        "spec": {},
    }
