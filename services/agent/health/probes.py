"""One question to the application: HTTP, TCP, a command, or gRPC's health service. Returns, or raises ProbeFailed.

It comes from this machine, to 127.0.0.1 unless the probe names a host, past interception and so past mTLS.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from windward.api.registry.v1 import registry_pb2

LARGEST_HEAD_BYTES = 64 * 1024
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
                    await _http(probe.http_get, probe.http_get.host or host)
                case "tcp_socket":
                    await _tcp(probe.tcp_socket.host or host, probe.tcp_socket.port)
                case "grpc":
                    await _grpc(probe.grpc, host)
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


async def _http(probe: registry_pb2.ReadinessProbe.HttpGet, host: str) -> None:
    """200 to 399 is healthy, as kubelet takes it; a certificate is not checked, as kubelet does not."""
    context = None
    if probe.tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(
        host, probe.port, ssl=context, limit=LARGEST_HEAD_BYTES
    )
    try:
        writer.write(request_text(probe, host).encode("latin-1"))
        line = (await reader.readuntil(b"\n")).split(None, 2)
    except asyncio.LimitOverrunError as error:
        raise ProbeFailed("the answer is not HTTP") from error
    finally:
        writer.close()
    if len(line) < 2 or not line[0].startswith(b"HTTP/1.") or not line[1].isdigit():
        raise ProbeFailed("the answer is not HTTP")
    if not 200 <= int(line[1]) < 400:
        raise ProbeFailed(f"HTTP status {int(line[1])}")


def request_text(probe: registry_pb2.ReadinessProbe.HttpGet, host: str) -> str:
    """The request. Headers of the group's go over ours. Raises ValueError for one that would end its line."""
    place = f"[{host}]" if ":" in host else host
    headers = {"host": f"{place}:{probe.port}", "user-agent": "windward-probe", "accept": "*/*"}
    for header in probe.headers:
        name, _, value = header.partition(":")
        headers[name.strip().lower()] = value.strip()
    lines = [f"GET {probe.path or '/'} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append("connection: close")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break in the probe's path or headers")
    return "\r\n".join(lines) + "\r\n\r\n"


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


async def _grpc(probe: registry_pb2.ReadinessProbe.Grpc, host: str) -> None:
    place = f"[{host}]" if ":" in host else host
    options = (("grpc.enable_http_proxy", 0),)
    async with grpc.aio.insecure_channel(f"{place}:{probe.port}", options=options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=probe.service))
        except grpc.aio.AioRpcError as error:
            raise ProbeFailed(
                f"{error.code().name}: {(error.details() or '')[:LONGEST_REASON]}"
            ) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise ProbeFailed(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
