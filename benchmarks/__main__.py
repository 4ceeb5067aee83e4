"""``python -m benchmarks SCENARIO [options] --json FILE``: measurements, each one flat JSON object and a table.

dns     the agent's DNS proxy: latency and CPU of the mesh's own names
mesh    change -> every proxy has ACKed it, and -> the data path shows it; CPU-seconds and memory of each service
bars    every measurement that has a bar: prints bar, figure, held or not; raw JSON goes to benchmarks/results/

The machine's load average stands beside every figure: a figure without it says little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from benchmarks import bars, dns, mesh


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenario", choices=("dns", "mesh", "bars"))
    parser.add_argument("--changes", type=int, default=20, help="configuration changes to time")
    parser.add_argument("--json", type=Path, default=None, help="where the result goes")
    options = parser.parse_args()
    if options.scenario == "bars":
        return bars.run(Path(__file__).parent / "results")
    result = (
        dns.measure() if options.scenario == "dns" else asyncio.run(mesh.measure(options.changes))
    )
    for name, value in result.items():
        print(f"{name:<32} {value}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
