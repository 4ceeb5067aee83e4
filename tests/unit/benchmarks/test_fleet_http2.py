"""The fleet's HTTP/2 against a server that is nothing but frames (RFC 9113)."""

import asyncio
import struct
from contextlib import asynccontextmanager

from envoy.service.discovery.v3 import discovery_pb2

from tests.unit.benchmarks.ads import a_cluster, fleet
from windward.xds.envelope import delta_response
from windward.xds.resource import CLUSTER, ENDPOINT

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)
ACK, END_STREAM, END_HEADERS, PADDED = 1, 1, 4, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Connection:
    def __init__(self, reader, writer) -> None:
        self._reader, self._writer = reader, writer
        self._message = b""

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        head = (
            struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream)
        )
        self._writer.write(head + payload)

    async def frame(self) -> tuple[int, int, int, bytes]:
        async with asyncio.timeout(10):
            head = await self._reader.readexactly(9)
            size = int.from_bytes(head[:3], "big")
            body = await self._reader.readexactly(size)
        return head[3], head[4], int.from_bytes(head[5:], "big"), body

    async def next(self, kind: int) -> tuple[int, int, bytes]:
        """The next frame of this kind; others are passed over."""
        while True:
            got, flags, stream, body = await self.frame()
            if got == kind:
                return flags, stream, body

    async def message(self):
        """The next gRPC message of the stream, put together from its frames."""
        while len(self._message) < 5 or len(self._message) < 5 + self._size():
            _, stream, body = await self.next(DATA)
            assert stream == 1
            self._message += body
        raw, self._message = self._message[5 : 5 + self._size()], self._message[5 + self._size() :]
        return discovery_pb2.DeltaDiscoveryRequest.FromString(raw)

    def _size(self) -> int:
        return int.from_bytes(self._message[1:5], "big")

    async def closed(self) -> bool:
        async with asyncio.timeout(10):
            while await self._reader.read(65536):
                pass
        return True


@asynccontextmanager
async def connections(tmp_path, settings: bytes = b""):
    """A fleet of one, and its connections as they come, their prefaces and settings exchanged."""
    queue: asyncio.Queue[Connection] = asyncio.Queue()

    async def serve(reader, writer):
        assert await reader.readexactly(len(PREFACE)) == PREFACE
        made = Connection(reader, writer)
        made.send(SETTINGS, 0, 0, settings)
        queue.put_nowait(made)
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with fleet(tmp_path, server.sockets[0].getsockname()[1]) as made:
            made.say("connect")
            yield queue, made
    finally:
        for writer in writers:
            writer.close()
        server.close()


async def take(queue) -> Connection:
    return await asyncio.wait_for(queue.get(), 10)


def grpc_frame(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


def cluster_response(*names: str) -> bytes:
    return grpc_frame(delta_response(CLUSTER, [a_cluster(name) for name in names], [], "1", "n1"))


async def test_it_sends_no_more_than_the_windows_allow(tmp_path):
    async with connections(tmp_path) as (queue, _):
        peer = await take(queue)
        first = (await peer.message()).ByteSize() + 5
        names = [f"{index:03d}" + "b" * 500 for index in range(200)]
        for at in range(0, 200, 10):
            peer.send(DATA, 0, 1, cluster_response(*names[at : at + 10]))
        # Over 100 kB of subscriptions are due. Until a window is opened, no more than 65,535 bytes may come in all.
        # A PING's answer comes after all that was written before: the second one, after all that was due.
        got = 0
        for ping in (b"first---", b"second--"):
            peer.send(PING, 0, 0, ping)
            while True:
                kind, _, _, body = await peer.frame()
                if kind == PING:
                    assert body == ping
                    break
                got += len(body) if kind == DATA else 0
        assert got + first == 65_535
        peer.send(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1000))
        peer.send(WINDOW_UPDATE, 0, 0, struct.pack(">I", 600))
        _, _, body = await peer.next(DATA)
        assert len(body) == 600  # the connection's window is the smaller one


async def test_a_smaller_window_by_settings_is_a_debt_to_be_paid_first(tmp_path):
    async with connections(tmp_path) as (queue, _):
        peer = await take(queue)
        first = (await peer.message()).ByteSize() + 5
        peer.send(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))  # SETTINGS_INITIAL_WINDOW_SIZE
        peer.send(DATA, 0, 1, cluster_response("a"))
        peer.send(WINDOW_UPDATE, 0, 1, struct.pack(">I", first + 10))
        _, _, body = await peer.next(DATA)
        assert len(body) == 10


async def test_a_ping_is_answered_with_its_own_bytes(tmp_path):
    async with connections(tmp_path) as (queue, _):
        peer = await take(queue)
        peer.send(PING, 0, 0, b"12345678")
        flags, stream, body = await peer.next(PING)
        assert (flags, stream, body) == (ACK, 0, b"12345678")


async def test_padding_and_messages_over_frames_and_frames_over_messages(tmp_path):
    async with connections(tmp_path) as (queue, made):
        peer = await take(queue)
        await peer.message()
        whole = cluster_response("a") + grpc_frame(
            delta_response(CLUSTER, [a_cluster("b")], [], "2", "n2")
        )
        peer.send(DATA, PADDED, 1, b"\x04" + whole[:7] + b"\0\0\0\0")
        peer.send(DATA, 0, 1, whole[7:])
        answers = [await peer.message() for _ in range(4)]
        assert [m.response_nonce for m in answers if m.type_url == CLUSTER] == ["n1", "n2"]
        assert (await made.report())["resources_cds"] == 2


async def test_what_it_received_is_given_back_as_window(tmp_path):
    async with connections(tmp_path) as (queue, _):
        peer = await take(queue)
        await peer.message()
        sent, frame = (
            0,
            grpc_frame(b"\x0a\x01x" * 5000),
        )  # a message of a type that nobody asked for
        while sent < 9 << 20:
            peer.send(DATA, 0, 1, frame)
            sent += len(frame)
        given = 0
        while not given:
            _, stream, body = await peer.next(WINDOW_UPDATE)
            given = int.from_bytes(body, "big") if stream == 1 else 0
        assert 8 << 20 <= given <= sent


async def test_a_status_in_trailers_is_counted_and_the_stream_comes_back(tmp_path):
    trailers = b"\x88\x00\x0bgrpc-status\x0214"  # :status 200, then a literal without indexing
    async with connections(tmp_path) as (queue, made):
        peer = await take(queue)
        peer.send(HEADERS, END_STREAM, 1, trailers[:6])
        peer.send(CONTINUATION, END_HEADERS, 1, trailers[6:])
        await take(queue)
        report = await made.report()
    assert report["statuses"] == "14:1 "
    assert report["disconnects"] == 1


async def test_a_status_in_huffmans_code_is_read_too(tmp_path):
    name = bytes.fromhex("9acac8b21234da8f")
    value = bytes((0b00001_011, 0b010_11111))  # "1", "4"
    block = b"\x00" + bytes((0x80 | len(name),)) + name + bytes((0x80 | len(value),)) + value
    async with connections(tmp_path) as (queue, made):
        peer = await take(queue)
        peer.send(HEADERS, END_STREAM | END_HEADERS, 1, block)
        await take(queue)
        assert (await made.report())["statuses"] == "14:1 "


async def test_a_reset_stream_and_a_connection_that_goes_away_come_back(tmp_path):
    async with connections(tmp_path) as (queue, made):
        peer = await take(queue)
        peer.send(RST_STREAM, 0, 1, struct.pack(">I", 7))
        peer = await take(queue)
        peer.send(GOAWAY, 0, 0, struct.pack(">II", 0, 0))  # last stream 0: ours was never seen
        await take(queue)
        report = await made.report()
    assert (report["resets"], report["goaways"], report["disconnects"]) == (1, 1, 2)


async def test_after_a_goaway_that_knows_the_stream_it_goes_on(tmp_path):
    async with connections(tmp_path) as (queue, made):
        peer = await take(queue)
        await peer.message()
        peer.send(GOAWAY, 0, 0, struct.pack(">II", 1, 0))
        peer.send(DATA, 0, 1, cluster_response("a"))
        assert (await peer.message()).type_url == ENDPOINT
        assert (await made.report())["disconnects"] == 0


async def test_a_server_that_breaks_the_protocol_is_left(tmp_path):
    broken = [
        (PING, 0, b"123"),
        (WINDOW_UPDATE, 0, bytes(4)),
        (5, 1, b""),
        (DATA, 0, b"\x01\0\0\0\0"),
    ]
    async with connections(tmp_path) as (queue, made):
        for kind, stream, payload in broken:
            peer = await take(queue)
            peer.send(kind, 0, 1 if kind == DATA else stream, payload)
            assert await peer.closed()
        assert (await made.report())["protocol_errors"] == len(broken)
