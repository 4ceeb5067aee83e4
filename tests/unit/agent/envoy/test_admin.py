"""Questions to Envoy's admin interface, answered by a server of the test's own."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.envoy.admin import Admin, _dechunk

LIVE = {
    "cluster_manager.cds.update_success": 1,
    "cluster_manager.cds.update_rejected": 0,
    "listener_manager.lds.update_success": 1,
    "listener_manager.lds.update_rejected": 0,
    "server.state": 0,
    "listener_manager.workers_started": 1,
}


class FakeEnvoy:
    """Answers every request with one text, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.body = b""
        self.chunked = False

    def say(self, stats: dict[str, int]) -> None:
        self.body = "".join(f"{name}: {value}\n" for name, value in stats.items()).encode()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split(b" HTTP/1.1")[0].decode())
        if self.chunked:
            half = len(self.body) // 2
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(
                b"".join(_chunk(part) for part in (self.body[:half], self.body[half:]))
                + b"0\r\n\r\n"
            )
        else:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + self.body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def _chunk(part: bytes) -> bytes:
    return f"{len(part):x}\r\n".encode() + part + b"\r\n" if part else b""


@pytest.fixture
async def envoy():
    fake = FakeEnvoy()
    server = await asyncio.start_server(fake.answer, "127.0.0.1", 0)
    async with server:
        yield fake, Admin(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_live_with_clusters_and_listeners_is_ready(envoy):
    fake, admin = envoy
    fake.say(LIVE)
    assert await admin.not_ready() == ""
    fake.chunked = True
    assert await admin.not_ready() == ""


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ({"cluster_manager.cds.update_success": 0}, "Envoy has not received its clusters"),
        (
            {"cluster_manager.cds.update_success": 0, "cluster_manager.cds.update_rejected": 2},
            "Envoy has rejected its clusters",
        ),
        ({"listener_manager.lds.update_success": 0}, "Envoy has not received its listeners"),
        (
            {"listener_manager.lds.update_success": 0, "listener_manager.lds.update_rejected": 1},
            "Envoy has rejected its listeners",
        ),
        ({"server.state": 2}, "Envoy is not LIVE"),
        ({"listener_manager.workers_started": 0}, "Envoy's workers have not started"),
    ],
)
async def test_not_received_rejected_and_not_live_are_told_apart(envoy, over, reason):
    fake, admin = envoy
    fake.say(LIVE | over)
    assert await admin.not_ready() == reason


async def test_a_later_rejection_does_not_undo_readiness(envoy):
    fake, admin = envoy
    fake.say(LIVE | {"listener_manager.lds.update_rejected": 3})
    assert await admin.not_ready() == ""


async def test_nothing_known_is_nothing_received(envoy):
    _, admin = envoy
    assert await admin.not_ready() == "Envoy has not received its clusters"


async def test_no_envoy_is_a_reason_and_no_error():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    admin = Admin(f"127.0.0.1:{port}")
    assert await admin.not_ready() == "Envoy does not answer"
    assert await admin.serves_application() is False
    with pytest.raises(OSError, match="Connect"):
        await admin.get("/")


async def test_an_envoy_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr("services.agent.envoy.admin.TIMEOUT_S", 0.05)

    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        admin = Admin(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await admin.not_ready() == "Envoy does not answer"
        await left.wait()


@pytest.mark.parametrize(
    ("over", "serves"),
    [
        (
            {
                "cluster.inbound|80||.upstream_cx_total": 0,
                "listener_manager.total_listeners_warming": 0,
            },
            True,
        ),
        (
            {
                "cluster.inbound|80||.upstream_cx_total": 0,
                "listener_manager.total_listeners_warming": 1,
            },
            False,
        ),
        ({"listener_manager.total_listeners_warming": 0}, False),
        ({}, False),
    ],
)
async def test_the_application_is_served_once_its_listeners_stand(envoy, over, serves):
    fake, admin = envoy
    fake.say(LIVE | over)
    assert await admin.serves_application() is serves


async def test_what_is_asked_is_what_was_meant(envoy):
    fake, admin = envoy
    fake.body = b"OK\n"
    assert await admin.post("/drain_listeners?inboundonly&graceful") == (200, b"OK\n")
    assert await admin.get("/stats/prometheus") == (200, b"OK\n")
    assert fake.asked == ["POST /drain_listeners?inboundonly&graceful", "GET /stats/prometheus"]


async def test_connections_of_listeners_count_and_the_admins_do_not(envoy):
    fake, admin = envoy
    fake.say(
        {
            "listener.0.0.0.0_15006.downstream_cx_active": 2,
            "listener.127.1.2.3_9080.downstream_cx_active": 1,
            "listener.admin.downstream_cx_active": 7,
            "listener.admin.main_thread.downstream_cx_active": 7,
            "listener.0.0.0.0_15006.worker_0.downstream_cx_active": 2,
            "listener.envoy_internal_connect_originate.downstream_cx_active": 5,
            "listener.0.0.0.0_15021.downstream_cx_active": 4,
            "http.inbound.downstream_cx_active": 9,
        }
    )
    assert await admin.active_connections({15021}) == 3
    assert await admin.active_connections() == 7
    fake.body = b""
    assert await admin.active_connections() == 0


async def test_what_arrives_is_counted(envoy):
    fake, admin = envoy
    fake.say(
        {
            "http.inbound_0.0.0.0_9080.downstream_rq_total": 5,
            "listener.0.0.0.0_15006.downstream_cx_total": 2,
            "listener.0.0.0.0_15006.worker_0.downstream_cx_total": 2,
            "listener.admin.downstream_cx_total": 9,
        }
    )
    assert await admin.arrivals() == 7


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5))
def test_chunks_are_joined(parts):
    raw = b"".join(_chunk(part) for part in parts) + b"0\r\n\r\n"
    assert _dechunk(raw) == b"".join(parts)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=3))
def test_a_body_that_breaks_off_between_chunks_ends(parts):
    assert _dechunk(b"".join(_chunk(part) for part in parts)) == b"".join(parts)
