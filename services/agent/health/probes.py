"""One question to the application: HTTP, TCP, a command, or gRPC's health service. Returns, or raises ProbeFailed.

It comes from this machine, to 127.0.0.1 unless the probe names a host, past interception and so past mTLS.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.agent.asking import grpc_health, http
from windward.api.registry.v1 import registry_pb2

BODY_LIMIT_BYTES = 10 * 1024
LONGEST_REASON = 200


class ProbeFailed(Exception):
    """Why the application is not taken for healthy."""


async def ask(
    probe: registry_pb2.ReadinessProbe, *, host: str, timeout_s: float, commands: bool
) -> None:
    """Ask once. ``host``: where the application is. ``commands``: whether this agent runs them for its Pilot."""
    try:
        async with asyncio.timeout(timeout_s):
            match probe.WhichOneof("kind"):
                case "http_get":
                    await _http(probe.http_get, probe.http_get.host or host, timeout_s)
                case "tcp_socket":
                    await _tcp(probe.tcp_socket.host or host, probe.tcp_socket.port)
                case "grpc":
                    await _grpc(probe.grpc, host, timeout_s)
                case "exec" if commands:
                    await _command(tuple(probe.exec.command))
                case "exec":
                    raise ProbeFailed("it is a command, and the agent has --probe-commands false")
                case _:
                    raise ProbeFailed("a kind of probe that this agent does not know")
    except TimeoutError as error:
        raise ProbeFailed(f"no answer within {timeout_s:g} s") from error
    except (OSError, ValueError, asyncio.IncompleteReadError) as error:
        raise ProbeFailed(str(error)[:LONGEST_REASON] or type(error).__name__) from error


async def _tcp(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()


async def _http(probe: registry_pb2.ReadinessProbe.HttpGet, host: str, timeout_s: float) -> None:
    """200 to 399 is healthy, as kubelet takes it; a certificate is not checked, as kubelet does not."""
    answer = await http.get(
        host,
        probe.port,
        probe.path or "/",
        headers_of(probe, host),
        timeout_s=timeout_s,
        limit_bytes=BODY_LIMIT_BYTES,
        tls=probe.tls,
        cut=True,
    )
    if not 200 <= answer.status < 400:
        raise ProbeFailed(f"HTTP status {answer.status}")


def headers_of(probe: registry_pb2.ReadinessProbe.HttpGet, host: str) -> dict[str, str]:
    """Headers of the group's go over ours. Raises ValueError for one that would end its line."""
    place = f"[{host}]" if ":" in host else host
    headers = {"host": f"{place}:{probe.port}", "user-agent": "windward-probe", "accept": "*/*"}
    for header in probe.headers:
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    said = (probe.path, *headers, *headers.values())
    if any("\r" in text or "\n" in text for text in said):
        raise ValueError("a line break in the probe's path or headers")
    return headers


async def _command(command: tuple[str, ...]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        status = await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if status:
        raise ProbeFailed(f"{command[0]} ended with {status}")


async def _grpc(probe: registry_pb2.ReadinessProbe.Grpc, host: str, timeout_s: float) -> None:
    if not await grpc_health.serving(host, probe.port, probe.service, timeout_s=timeout_s):
        raise ProbeFailed("it does not say that it is serving")
