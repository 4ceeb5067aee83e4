"""Of many sidecars only some start at one time: each has its share of the machine while its time to start runs."""

from __future__ import annotations

import asyncio

from windward.local.addresses import Mode
from windward.local.child import ChildSpec
from windward.local.mesh import MOST_STARTING, Mesh

ONE = "- {{name: w{0}, group: w, service_account: w, port: 9080, command: ['true']}}\n"


async def test_all_sidecars_start_but_never_more_than_so_many_at_once(tmp_path, monkeypatch):
    count = 3 * MOST_STARTING
    topology = tmp_path / "topology.yaml"
    topology.write_text("workloads:\n" + "".join(map(ONE.format, range(count))))
    mesh = Mesh(tmp_path / "run", topology, mode=Mode.LOOPBACK)
    starting, most, started = 0, 0, []

    async def start(name, *_, **__):
        nonlocal starting, most
        starting += 1
        most = max(most, starting)
        await asyncio.sleep(0)
        starting -= 1
        started.append(name)

    async def give_token(*_):
        pass

    spec = ChildSpec("w", ("true",), tmp_path / "log")
    monkeypatch.setattr(mesh, "_start", start)
    monkeypatch.setattr(mesh, "_give_token", give_token)
    async with asyncio.TaskGroup() as group:
        for name in mesh.topology.names:
            group.create_task(mesh._start_agent(name, "sidecar", spec, "bookshop", "w"))
    assert sorted(started) == sorted(mesh.topology.names)
    assert most == MOST_STARTING
