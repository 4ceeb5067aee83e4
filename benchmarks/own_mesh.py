"""A local mesh of a measurement's own, in a folder that goes with it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from windward.local.mesh import Mesh
from windward.local.parts import Options


@asynccontextmanager
async def own_mesh(
    write_topology: Callable[[Path], Path], options: Options | None = None
) -> AsyncIterator[Mesh]:
    """Up, with a gateway on any free port. ``write_topology`` puts the mesh into a folder as files; the topology's path."""
    with tempfile.TemporaryDirectory(prefix="ww-") as text:
        folder = Path(text)
        mesh = Mesh(folder / "run", write_topology(folder), options=options, gateway_port=0)
        await mesh.up()
        try:
            yield mesh
        finally:
            await mesh.down()
