"""``python -m benchmarks SCENARIO [options] --json FILE``: measurements, each one flat JSON object and a table.

added-latency  two sidecars at 1,000 requests/s over 16 connections, against none and against two bare Envoys with mTLS
agent-outage   the control plane dead: restarts of agent and Envoy, and --minutes of requests with Citadel coming and going
agent          eight agents: memory, idle CPU, the start of one, SIGTERM under load
chaos          Envoys, agents, Pilot and Citadel killed at random for --seconds: what every failed request was due to
dns            the agent's DNS proxy: latency and CPU of the mesh's own names
leases         endpoints lost with etcd stopped, with all Pilots dead, with one of two killed
route-edits    --edits of routes, subsets and destinations under 500 requests/s: failed requests
many-envoys    --envoys real Envoys with agents, each in a network namespace: all in sync; memory and CPU
workload-api   a node agent with 100 workloads: fetching their certificates, and following renewals (needs root)
mesh           change -> every proxy has ACKed it, and -> the data path shows it; CPU-seconds and memory of each service
nacks          bad objects that real Envoys refuse: who is blamed and how soon, what good is held back (needs root)
xds-endpoint   N services, M simulated sidecars: one endpoint changes -> all have ACKed
xds-route      likewise: one VirtualService changes
xds-churn      likewise: --rate endpoint changes a second for --seconds
xds-cold       what the first proxy costs a fresh Pilot, and until all are in sync when they connect at once
xds-memory     Pilot's memory, idle and over 10,000 changes
xds-storm      Pilot killed under all streams: until everybody is in sync again
xds-store      Pilot started on a store of 30,000 objects
xds-envoy      one endpoint changes; two of the sidecars are real Envoys: until all have ACKed, until the Envoys serve it
bars           every measurement that has a bar: prints bar, figure, held or not; raw JSON goes to benchmarks/results/
xds-bars       those of the xds scenarios only (some twenty minutes)
fuzz           TARGET, or all: --executions of inputs that are almost right; failures go to build/fuzz (docs/fuzzing.md)
laws           LAW, or all: --examples of random histories of 500 steps, by --seed (docs/laws.md)

The machine's load average stands beside every figure: a figure without it says little. The xds scenarios run a real
etcd, Citadel and Pilot and a fleet of lean ADS clients (benchmarks/fleet), over mTLS with one identity a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.xds.scene import Wish

RESULTS = Path(__file__).parent / "results"
XDS = (
    "xds-endpoint", "xds-route", "xds-churn", "xds-cold", "xds-memory", "xds-storm", "xds-store", "xds-envoy",
)  # fmt: skip


BARS = ("bars", "xds-bars")
FUZZ, LAWS = "fuzz", "laws"


def _agent_outage(options: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks import agent_outage

    return agent_outage.measure(options.minutes, options.ttl, options.restarts)


def _agent(_: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks import agent

    return asyncio.run(agent.measure())


def _added_latency(_: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks import added_latency

    return added_latency.measure()


def _many_envoys(options: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks import many_envoys

    return many_envoys.measure(options.envoys)


def _chaos(options: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks.chaos import run

    return run.measure(options.seconds, options.seed)


def _route_edits(options: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks import route_edits

    return route_edits.measure(options.edits)


def _dns(_: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks import dns

    return dns.measure()


def _leases(_: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks import leases

    return leases.measure()


def _nacks(_: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks.nacks import run

    return run.measure()


def _workload_api(_: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks import workload_api

    return workload_api.measure()


def _mesh(options: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks import mesh

    return asyncio.run(mesh.measure(options.changes))


def _xds(options: argparse.Namespace) -> Mapping[str, Any]:
    from benchmarks.xds.run import several

    return several(options.scenario, wish(options), options.runs, options.against)


SCENARIOS: Mapping[str, Callable[[argparse.Namespace], Mapping[str, Any]]] = {
    "added-latency": _added_latency,
    "agent-outage": _agent_outage,
    "agent": _agent,
    "chaos": _chaos,
    "dns": _dns,
    "leases": _leases,
    "route-edits": _route_edits,
    "many-envoys": _many_envoys,
    "mesh": _mesh,
    "nacks": _nacks,
    "workload-api": _workload_api,
    **dict.fromkeys(XDS, _xds),
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("scenario", choices=(*SCENARIOS, *BARS, FUZZ, LAWS))
    made.add_argument(
        "target", nargs="?", default="all", help="fuzz, laws: which one (default: all)"
    )
    numbers = (
        ("--changes", 20, "changes to time"),
        ("--services", 1000, "services of the mesh"),
        ("--streams", 1000, "simulated sidecars"),
        ("--scopes", 100, "namespaces that they live in"),
        ("--ports", 20, "distinct ports of the services, each a route configuration"),
        ("--rate", 100, "churn: changes a second"),
        ("--seconds", 60, "churn, chaos: for how long"),
        ("--seed", 1, "chaos: of the schedule of kills; fuzz, laws: the first"),
        ("--executions", 1_000_000, "fuzz: of each target"),
        ("--examples", 2000, "laws: histories of each"),
        ("--envoys", 200, "many-envoys: how many, at most 240"),
        ("--edits", 20, "route-edits: how many"),
        ("--minutes", 30, "agent-outage, bars: how long the control plane stays dead"),
        ("--ttl", 240, "agent-outage: lifetime of certificates in seconds"),
        ("--restarts", 3, "agent-outage: of each kind"),
        ("--workers", 0, "xds: Pilot's processes; then it has all cores, as everybody"),
        ("--runs", 1, "how often; the figures are medians"),
    )
    for flag, default, text in numbers:
        made.add_argument(
            flag, type=_count, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    made.add_argument(
        "--replay", type=Path, metavar="FILE", help="fuzz: a failure's input, once more"
    )
    made.add_argument("--plaintext", action="store_true", help="no TLS, no identities")
    made.add_argument("--sotw", action="store_true", help="state of the world instead of delta")
    made.add_argument(
        "--against",
        type=Path,
        metavar="FOLDER",
        help="another checkout, set up, whose Pilot is measured in turn",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="where the result goes")
    return made


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def wish(options: argparse.Namespace) -> Wish:
    return Wish(
        services=options.services,
        streams=options.streams,
        scopes=options.scopes,
        ports=options.ports,
        plaintext=options.plaintext,
        sotw=options.sotw,
        changes=options.changes,
        rate=options.rate,
        seconds=options.seconds,
        pilot_flags=("--workers", str(options.workers)) if options.workers else (),
    )


def main() -> int:
    options = parser().parse_args()
    if options.scenario in BARS:
        from benchmarks import bars

        return bars.run(
            RESULTS,
            only_xds=options.scenario == "xds-bars",
            runs=options.runs,
            minutes=options.minutes,
        )
    if options.scenario == FUZZ:
        from benchmarks.fuzz import command

        return command.run(
            options.target, options.executions, options.seed, options.replay, options.json
        )
    if options.scenario == LAWS:
        from benchmarks import laws

        return laws.run(options.target, options.examples, options.seed, options.json)
    if options.against and not (options.against / "services" / "pilot" / "main.py").exists():
        sys.stderr.write(f"benchmarks: --against {options.against}: not a checkout of Windward\n")
        return 2
    from benchmarks.xds.run import Failed, show

    # Ended like Ctrl-C: servers stopped, folder removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = SCENARIOS[options.scenario](options)
    except Failed as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    show(result, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
