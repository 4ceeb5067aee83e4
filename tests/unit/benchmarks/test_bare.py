import json
import subprocess
from datetime import UTC, datetime

import pytest

from benchmarks.bare import bare_config
from benchmarks.fleet.identities import certificate, write_secret
from benchmarks.xds.bench import split_identity
from services.agent.envoy.process import find_envoy
from services.citadel.authority.root import load_or_create
from services.citadel.authority.sealing import load_or_make_key
from windward.store.memory import MemoryStore


@pytest.mark.parametrize("name", ["caller", "callee"])
async def test_envoy_accepts_both_sides(tmp_path, name):
    kek = load_or_make_key(tmp_path / "kek")
    root = await load_or_create(
        MemoryStore(), kek, "cluster.local", 3600.0, lambda: datetime.now(UTC)
    )
    both = certificate(root, "cluster.local", "bookshop", name)
    files = []
    for file, content in split_identity(both, root.pem):
        write_secret(tmp_path / file, content)
        files.append(str(tmp_path / file))
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(bare_config(name, "127.0.0.1", tuple(files))))
    done = subprocess.run(
        [find_envoy(""), "-c", str(path), "--mode", "validate"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_only_what_lies_between_them_is_mtls():
    files = ("c", "k", "r")
    caller = bare_config("caller", "10.0.0.2", files)["static_resources"]
    callee = bare_config("callee", "10.0.0.2", files)["static_resources"]
    assert "transport_socket" in caller["clusters"][0]
    assert "transport_socket" not in caller["listeners"][0]["filter_chains"][0]
    assert "transport_socket" not in callee["clusters"][0]
    chain = callee["listeners"][0]["filter_chains"][0]
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
