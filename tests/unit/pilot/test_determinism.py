"""The same mesh is the same bytes in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
from hashlib import blake2b
from tests.unit.pilot.whole import MESH_PROXIES, whole_mesh
from tests.unit.pilot.mesh import WITH_MIXER, generate
digest = blake2b()
for proxy in MESH_PROXIES:
    for type_url, named in sorted(generate(whole_mesh(), proxy, WITH_MIXER).items()):
        for name, item in named.items():
            digest.update(f"{type_url} {name} {item.version} {item.origins}".encode())
print(digest.hexdigest())
"""


def digest(seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done.stdout.strip()


def test_the_seed_of_hashes_does_not_matter():
    first, *others = [digest(seed) for seed in ("0", "1", "4242")]
    assert len(first) == 128
    assert set(others) == {first}
