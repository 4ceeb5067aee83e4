import asyncio
import os
import socket
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.agent.health.probes import ProbeFailed, ask, headers_of
from windward.api.registry.v1 import registry_pb2

Probe = registry_pb2.ReadinessProbe


async def result(probe, *, commands=True, timeout_s=5.0) -> str:
    """Empty for success, else why it failed."""
    try:
        await ask(probe, host="127.0.0.1", timeout_s=timeout_s, commands=commands)
    except ProbeFailed as failure:
        return str(failure)
    return ""


@asynccontextmanager
async def answering(text: bytes, heard: list[bytes] | None = None):
    async def connection(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(request)
        writer.write(text)
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def unused_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP status 404"),
        (b"HTTP/1.1 503\r\n\r\n", "HTTP status 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer with HTTP"),
        (b"x" * 200_000, "does not answer with HTTP"),
    ],
)
async def test_http(answer, reason):
    async with answering(answer) as port:
        said = await result(Probe(http_get=Probe.HttpGet(port=port)))
    assert reason in said if reason else said == ""


async def test_http_sends_what_the_group_says():
    heard: list[bytes] = []
    get = Probe.HttpGet(path="/ready", headers=["Host: shop.example.com", "X-Ask: 1"])
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", heard) as get.port:
        assert await result(Probe(http_get=get)) == ""
    assert heard[0].startswith(b"GET /ready HTTP/1.1\r\nhost: shop.example.com\r\n")
    assert b"\r\nx-ask: 1\r\n" in heard[0]


async def test_a_line_break_in_a_header_is_a_failure_and_nothing_is_sent():
    get = Probe.HttpGet(port=1, headers=["X: a\r\nEvil: b"])
    with pytest.raises(ValueError, match="line break"):
        headers_of(get, "127.0.0.1")


async def test_tcp():
    async with answering(b"") as port:
        assert await result(Probe(tcp_socket=Probe.TcpSocket(port=port))) == ""
    refused = await result(Probe(tcp_socket=Probe.TcpSocket(port=unused_port())))
    assert "Connect call failed" in refused


async def test_a_command_succeeds_by_its_status():
    assert await result(Probe(exec=Probe.Exec(command=["true"]))) == ""
    assert await result(Probe(exec=Probe.Exec(command=["false"]))) == "false ended with 1"
    assert "No such file" in await result(Probe(exec=Probe.Exec(command=["no-such-program"])))


async def test_a_command_is_not_run_unless_the_agent_allows_it(tmp_path):
    touched = tmp_path / "touched"
    probe = Probe(exec=Probe.Exec(command=["touch", str(touched)]))
    assert "--probe-commands" in await result(probe, commands=False)
    assert not touched.exists()
    assert await result(probe) == ""
    assert touched.exists()


async def test_what_does_not_answer_in_time_is_a_failure_and_a_command_is_ended(tmp_path):
    pid_file = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > {pid_file}; exec sleep 60"]
    probe = Probe(exec=Probe.Exec(command=command))
    assert await result(probe, timeout_s=0.3) == "no answer within 0.3 s"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


async def test_grpc():
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    refusing = "it does not say that it is serving"
    await servicer.set("shop", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert await result(Probe(grpc=Probe.Grpc(port=port))) == ""
    assert await result(Probe(grpc=Probe.Grpc(port=port, service="shop"))) == refusing
    assert await result(Probe(grpc=Probe.Grpc(port=port, service="other"))) == refusing
    await server.stop(None)
    assert "Connect call failed" in await result(Probe(grpc=Probe.Grpc(port=port)))


async def test_a_kind_of_the_future_is_a_failure():
    assert "does not know" in await result(Probe())
