"""``python -m tests.conformance --cases DIR --output FILE``: every suite of a folder of cases, run through the project's
own public entry points.

Prints ``suite passed/total`` a line and writes the outcome as JSON. For the project's own cases it fails where a suite
falls below the floor of floor.json, which only rises (``--raise-floor``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conformance import (
    suite_bootstrap,
    suite_citadel,
    suite_documents,
    suite_iptables,
    suite_validation,
    totals,
)
from tests.conformance.cases import Result

FLOOR = Path(__file__).with_name("floor.json")
DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "conformance"

SUITES: dict[str, tuple[str, Callable[[Path], Result]]] = {
    "pilot/validation": ("pilot/validation", suite_validation.run),
    "pilot/api-validation": (
        "pilot/api-validation",
        lambda folder: suite_documents.run(folder, "api-validation"),
    ),
    "pilot/istio-validation-crds": (
        "pilot/istio-validation-crds",
        lambda folder: suite_documents.run(folder, "istio-validation-crds"),
    ),
    "pilot/simulation": ("pilot/simulation", totals.simulation),
    "pilot/authz": ("pilot/authz", totals.indexed("authz")),
    "pilot/analyzers": ("pilot/analyzers", totals.indexed("analyzers")),
    "pilot/gateway-api": ("pilot/gateway-api", totals.indexed("gateway-api")),
    "pilot/ingress": ("pilot/ingress", totals.indexed("ingress")),
    "mixer/cexl_expressions": (
        "mixer/cexl_expressions.json",
        totals.rows("mixer/cexl_expressions.json"),
    ),
    "mixer/cexl_functions": ("mixer/cexl_functions.json", totals.rows("mixer/cexl_functions.json")),
    "mixer/cexl_parser": ("mixer/cexl_parser.json", totals.rows("mixer/cexl_parser.json")),
    "mixer/cel_mode": ("mixer/cel_mode.json", totals.rows("mixer/cel_mode.json")),
    "mixer/attribute_bag": ("mixer/attribute_bag.json", totals.rows("mixer/attribute_bag.json")),
    "mixer/runtime_rules": ("mixer/runtime_rules.json", totals.rows("mixer/runtime_rules.json")),
    "mixer/adapters": ("mixer/adapters.json", totals.rows("mixer/adapters.json")),
    "mixer/envoy_frontends": (
        "mixer/envoy_frontends.json",
        totals.rows("mixer/envoy_frontends.json"),
    ),
    "mixer/client_envoy": ("mixer/client_envoy.json", totals.rows("mixer/client_envoy.json")),
    "mixer/default_telemetry": (
        "mixer/default_telemetry.json",
        totals.rows("mixer/default_telemetry.json"),
    ),
    "citadel/spiffe": ("citadel/spiffe", suite_citadel.spiffe),
    "citadel/csr": ("citadel/csr", suite_citadel.csr),
    "citadel/jwt": ("citadel/jwt", totals.jwt),
    "citadel/limbo": ("citadel/limbo", totals.limbo),
    "citadel/iptables": ("citadel/iptables/cases.json", suite_iptables.run),
    "citadel/bootstrap": ("citadel/bootstrap/golden", suite_bootstrap.run),
    "citadel/inject": ("citadel/inject", totals.files("citadel/inject", "*.injected")),
    "citadel/inject-1.4.10": (
        "citadel/inject-1.4.10",
        totals.files("citadel/inject-1.4.10", "*.injected"),
    ),
}
"""Suite -> (what must be there for it, how it is run)."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="conformance", description=__doc__)
    parser.add_argument("--cases", type=Path, default=DEFAULT)
    parser.add_argument("--output", type=Path, default=Path("build/conformance.json"))
    parser.add_argument("--raise-floor", action="store_true")
    options = parser.parse_args()
    results: dict[str, Result] = {}
    for suite, (needed, run) in SUITES.items():
        if (options.cases / needed).exists():
            results[suite] = run(options.cases)
            print(f"{suite} {results[suite].passed}/{results[suite].total}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    written = {suite: result.as_dict() for suite, result in results.items()}
    options.output.write_text(json.dumps(written, indent=1) + "\n")
    if options.cases.resolve() != DEFAULT.resolve():
        return 0
    return check_floor(results, raise_it=options.raise_floor)


def check_floor(results: dict[str, Result], *, raise_it: bool) -> int:
    floor: dict[str, int] = json.loads(FLOOR.read_text()) if FLOOR.exists() else {}
    fallen = [
        f"{suite}: {results[suite].passed if suite in results else 'missing'}, was {least}"
        for suite, least in floor.items()
        if suite not in results or results[suite].passed < least
    ]
    for line in fallen:
        print(f"below the floor: {line}", file=sys.stderr)
    if raise_it and not fallen:
        raised = {
            suite: result.passed for suite, result in sorted(results.items()) if result.passed
        }
        FLOOR.write_text(json.dumps(raised, indent=1) + "\n")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
