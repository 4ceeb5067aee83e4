"""Services that cannot start: one clear line and a status. Those that cannot start yet wait, and say for what."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.shop import ROOT, until
from windward.local.addresses import free_port
from windward.local.etcd import EtcdProcess
from windward.local.ready import http_get

pytestmark = pytest.mark.timeout(120)
END_S = 30.0


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens at."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def command(service: str, **settings: object) -> list[str]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    return [str(ROOT / ".venv/bin" / f"windward-{service}"), *flags]


async def ended(service: str, **settings: object) -> tuple[int | None, str]:
    """Exit status and what went to stderr that is no log record, of a service that ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *command(service, **settings), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), END_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    lines = [line for line in said.decode().splitlines() if not line.startswith("{")]
    return process.returncode, "\n".join(lines)


@dataclass
class Service:
    process: asyncio.subprocess.Process
    ports_file: Path

    async def ports(self) -> dict[str, int]:
        async def written() -> bool:
            assert self.process.returncode is None
            return self.ports_file.exists()

        await until(written, "the service to listen")
        ports: dict[str, int] = json.loads(self.ports_file.read_bytes())
        return ports


@asynccontextmanager
async def started(folder: Path, service: str, **settings: object) -> AsyncIterator[Service]:
    """A service that runs while the block lasts, and ends in good order."""
    ports_file = folder / f"{service}.ports"
    process = await asyncio.create_subprocess_exec(
        *command(service, ports_file=ports_file, **settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Service(process, ports_file)
        assert process.returncode is None
        process.terminate()
        assert await asyncio.wait_for(process.wait(), END_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def citadel_settings(folder: Path, **more: object) -> dict[str, object]:
    local = "127.0.0.1:0"
    return {
        "store": "memory:",
        "kek_file": folder / "kek",
        "bootstrap_dir": folder / "bootstrap",
        "tls_address": local,
        "mtls_address": local,
        "metrics_address": local,
        **more,
    }


def enrolled(folder: Path, ports: dict[str, int], **more: object) -> dict[str, object]:
    """Settings of a service that has its certificate from that Citadel."""
    return {
        "citadel_address": f"127.0.0.1:{ports['tls']}",
        "citadel_mtls_address": f"127.0.0.1:{ports['mtls']}",
        "trust_bundle_file": folder / "bootstrap" / "root-cert.pem",
        "token_file": folder / "token",
        "state_dir": folder / "state",
        **more,
    }


@pytest.mark.parametrize("setting", ["tls_address", "mtls_address", "metrics_address"])
async def test_a_port_in_use_is_one_line_with_its_setting(folder: Path, taken: int, setting: str):
    settings = citadel_settings(folder, **{setting: f"127.0.0.1:{taken}"})
    status, said = await ended("citadel", **settings)
    assert status == 1
    flag = "--" + setting.replace("_", "-")
    assert said.startswith(f"windward-citadel: {flag} 127.0.0.1:{taken}: ")
    assert "in use" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("service", ["pilot", "mixer"])
async def test_a_wrong_token_is_one_line_that_says_how_to_get_a_right_one(
    folder: Path, service: str
):
    (folder / "token").write_text("wwjt_" + "x" * 43)
    async with started(folder, "citadel", **citadel_settings(folder)) as citadel:
        settings = enrolled(
            folder, await citadel.ports(), store="memory:", metrics_address="127.0.0.1:0"
        )
        status, said = await ended(service, **settings)
    assert status == 1
    assert f"refuses the token in {folder / 'token'}" in said
    assert "windward token create" in said
    assert len(said.splitlines()) == 1


async def test_an_agent_without_envoy_says_which_file_it_looked_for(folder: Path):
    settings = enrolled(
        folder, {"tls": 1, "mtls": 1}, pilot_address="127.0.0.1:1", namespace="bookshop",
        service_account="catalog", workload_name="catalog", address="127.0.0.1",
        envoy_binary=folder / "no-envoy",
    )  # fmt: skip
    status, said = await ended("agent", **settings)
    assert (status, said) == (
        1,
        f"windward-agent: --envoy-binary {folder / 'no-envoy'}: not an executable file",
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"store": "redis://127.0.0.1"}, "is not a store"),
        ({"default_ttl": "soon"}, "--default-ttl: 'soon' is not a duration"),
        ({"csr_mode": "lax"}, "--csr-mode"),
        ({"colour": "red"}, "--colour=red"),
    ],
)
async def test_settings_that_make_no_sense_are_one_line(
    folder: Path, settings: dict[str, object], named: str
):
    status, said = await ended("citadel", **citadel_settings(folder, **settings))
    assert status in {1, 2}
    assert named in said
    assert len(said.splitlines()) == 1


async def test_an_etcd_that_is_down_is_waited_for(folder: Path):
    """The process stays, says why it is not ready, and serves when etcd is there."""
    metrics = free_port("127.0.0.1")
    etcd = EtcdProcess(folder / "etcd")
    settings = citadel_settings(folder, store=etcd.url, metrics_address=f"127.0.0.1:{metrics}")
    async with started(folder, "citadel", **settings) as citadel:

        async def waiting() -> bool:
            try:
                status, body = await http_get("127.0.0.1", metrics, "/healthz/ready", timeout_s=2)
            except OSError:
                return False
            return status == 503 and b"waiting for the store" in body

        await until(waiting, "Citadel to say what it waits for")
        await etcd.start()
        try:
            assert set(await citadel.ports()) == {"tls", "mtls", "metrics"}
        finally:
            await etcd.kill()
