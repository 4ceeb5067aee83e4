"""A connection: what keeps to the protocol is served, what does not ends as RFC 9113 says, and nothing grows without a bound."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rpc.http2.peer import Peer
from windward.rpc.http2 import frames
from windward.rpc.http2.call import WIDE, WINDOW
from windward.rpc.http2.connection import CONNECTION_WINDOW, IDLE_FRAMES, IDLE_S, Limits
from windward.rpc.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Code,
)

INITIAL = frames.INITIAL_WINDOW_SIZE.to_bytes(2)


def test_the_server_says_its_settings_first_and_acknowledges_the_clients():
    peer = Peer(begin=False)
    first, window = peer.answers()
    assert (first.kind, first.flags, window.kind) == (SETTINGS, 0, WINDOW_UPDATE)
    peer.send_raw(frames.PREFACE + frames.settings({frames.ENABLE_PUSH: 0}))
    (acknowledged,) = peer.answers()
    assert (acknowledged.kind, acknowledged.flags) == (SETTINGS, ACK)
    assert peer.connection.begun


def test_bytes_may_come_one_by_one():
    peer = Peer(begin=False)
    block = peer.block()
    whole = (
        frames.PREFACE
        + frames.settings({})
        + frames.frame(HEADERS, END_HEADERS, 1, block)
        + frames.frame(DATA, END_STREAM, 1, b"\0\0\0\0\2hi")
    )
    got: list[bytes] = []
    for at in range(len(whole)):
        peer.send_raw(whole[at : at + 1])
        if peer.calls:
            peer.calls[0].follow(got.append, lambda: None, lambda: None)
    assert got == [b"hi"]


def test_http_1_is_turned_away():
    peer = Peer(begin=False)
    peer.send_raw(b"GET / HTTP/1.1\r\n\r\n")
    assert peer.code() is Code.PROTOCOL_ERROR


def test_a_response_and_a_status():
    peer = Peer()
    call = peer.open(flags=END_STREAM)
    call.send(b"hello")
    call.finish(grpc.StatusCode.OK)
    head, body, end = peer.answers()
    assert peer.fields(head)[":status"] == "200"
    assert peer.fields(head)["content-type"] == "application/grpc"
    assert body.payload == b"\0\0\0\0\5hello"
    assert (peer.fields(end), end.flags) == ({"grpc-status": "0"}, END_HEADERS | END_STREAM)
    assert not peer.connection.calls


def test_a_status_alone_and_its_words():
    peer = Peer()
    peer.open().finish(grpc.StatusCode.NOT_FOUND, "no 100 % häuser\n")
    end, left = peer.answers()
    fields = peer.fields(end)
    assert (fields[":status"], fields["grpc-status"]) == ("200", "5")
    assert fields["grpc-message"] == "no 100 %25 h%C3%A4user%0A"
    assert (left.kind, left.payload) == (RST_STREAM, bytes(4)), "the rest need not be sent"


def test_only_the_first_status_is_said():
    peer = Peer()
    call = peer.open(flags=END_STREAM)
    call.finish(grpc.StatusCode.OK)
    call.finish(grpc.StatusCode.INTERNAL)
    call.send(b"late")
    assert len(peer.answers()) == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"method": "GET"}, "405"),
        ({"content_type": "text/plain"}, "415"),
        ({"content_type": None}, "415"),
        ({"path": "no-slash"}, "400"),
    ],
)
def test_what_is_no_grpc_call_is_told_so(changes, status):
    peer = Peer()
    peer.send(HEADERS, END_HEADERS | END_STREAM, 1, peer.block(**changes))
    (answer,) = peer.answers()
    assert peer.fields(answer) == {":status": status}
    assert not peer.calls
    peer.open(3)


def test_headers_may_be_padded_prioritised_and_go_on():
    peer = Peer()
    block = peer.block(windward_position="7.7")
    begin = bytes((3,)) + bytes(5) + block[:10] + bytes(3)
    peer.send(HEADERS, PADDED | PRIORITISED, 1, begin)
    peer.send(CONTINUATION, 0, 1, block[10:20])
    peer.send(CONTINUATION, END_HEADERS, 1, block[20:])
    (call,) = peer.calls
    assert call.invocation_metadata() == (("windward-position", "7.7"),)
    assert call.method == "/windward.test.Echo/Call"


def test_a_client_may_end_with_trailers():
    peer = Peer()
    ended: list[bool] = []
    call = peer.open()
    call.follow(lambda _: None, lambda: ended.append(True), lambda: None)
    peer.send(HEADERS, END_HEADERS | END_STREAM, 1, peer.block())
    assert ended == [True]


def test_pings_are_answered():
    peer = Peer()
    peer.send(PING, 0, 0, b"12345678")
    (pong,) = peer.answers()
    assert (pong.kind, pong.flags, pong.payload) == (PING, ACK, b"12345678")


def test_a_ping_of_ours_is_known_as_answered():
    peer = Peer()
    peer.connection.ping()
    peer.connection.ping()
    (ping,) = peer.answers(PING)
    assert peer.connection.pinged_at == 0.0
    peer.send(PING, ACK, 0, ping.payload)
    assert peer.connection.pinged_at is None


def test_unknown_frames_and_settings_are_passed_over():
    peer = Peer()
    peer.send(0x77, 0xFF, 9, b"anything")
    peer.send(PRIORITY, 0, 1, bytes(5))
    peer.send_raw(frames.settings({0x9999: 7}))
    assert not peer.connection.closed


@pytest.mark.parametrize(
    ("kind", "flags", "stream", "payload", "code"),
    [
        (DATA, 0, 1, b"x", Code.PROTOCOL_ERROR),
        (DATA, 0, 0, b"x", Code.PROTOCOL_ERROR),
        (RST_STREAM, 0, 1, bytes(4), Code.PROTOCOL_ERROR),
        (RST_STREAM, 0, 1, bytes(3), Code.FRAME_SIZE_ERROR),
        (WINDOW_UPDATE, 0, 1, bytes(4), Code.PROTOCOL_ERROR),
        (WINDOW_UPDATE, 0, 0, bytes(4), Code.PROTOCOL_ERROR),
        (WINDOW_UPDATE, 0, 0, bytes(5), Code.FRAME_SIZE_ERROR),
        (WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff", Code.FLOW_CONTROL_ERROR),
        (SETTINGS, 0, 1, b"", Code.PROTOCOL_ERROR),
        (SETTINGS, 0, 0, b"12345", Code.FRAME_SIZE_ERROR),
        (SETTINGS, ACK, 0, bytes(6), Code.FRAME_SIZE_ERROR),
        (SETTINGS, 0, 0, INITIAL + b"\xff\xff\xff\xff", Code.FLOW_CONTROL_ERROR),
        (SETTINGS, 0, 0, b"\0\5" + bytes(4), Code.PROTOCOL_ERROR),
        (PING, 0, 0, b"short", Code.FRAME_SIZE_ERROR),
        (PING, 0, 1, bytes(8), Code.PROTOCOL_ERROR),
        (PUSH_PROMISE, END_HEADERS, 1, bytes(4), Code.PROTOCOL_ERROR),
        (CONTINUATION, END_HEADERS, 1, b"", Code.PROTOCOL_ERROR),
        (HEADERS, END_HEADERS, 2, b"", Code.PROTOCOL_ERROR),
        (HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff", Code.COMPRESSION_ERROR),
        (HEADERS, END_HEADERS | PADDED, 1, b"\x09abc", Code.PROTOCOL_ERROR),
        (HEADERS, END_HEADERS | PADDED, 1, b"", Code.FRAME_SIZE_ERROR),
    ],
)
def test_who_breaks_the_protocol_is_told_how_and_left(kind, flags, stream, payload, code):
    peer = Peer()
    peer.send(kind, flags, stream, payload)
    assert peer.code() is code


def test_a_header_block_cannot_be_interrupted():
    peer = Peer()
    peer.send(HEADERS, 0, 1, peer.block()[:5])
    peer.send(PING, 0, 0, bytes(8))
    assert peer.code() is Code.PROTOCOL_ERROR


def test_a_frame_of_over_16_kib_is_not_waited_for():
    peer = Peer()
    peer.send_raw(frames.FRAME.pack((frames.LARGEST_PAYLOAD + 1) << 8 | DATA, 0, 1))
    assert peer.code() is Code.FRAME_SIZE_ERROR


# ---- what a peer can make us keep -------------------------------------------------------------------------------------


def test_headers_of_over_16_kib_end_the_connection():
    peer = Peer()
    peer.send(HEADERS, 0, 1, peer.block(x="y" * 15_000))
    peer.send(CONTINUATION, END_HEADERS, 1, peer.block(x="z" * 16_000)[:100])
    assert peer.connection.closed


def test_a_header_block_without_an_end_ends_the_connection():
    peer = Peer()
    peer.send(HEADERS, 0, 1, b"")
    for _ in range(3):
        if not peer.connection.closed:
            peer.send(CONTINUATION, 0, 1, bytes(frames.LARGEST_PAYLOAD))
    assert peer.code() is Code.ENHANCE_YOUR_CALM


def test_continuations_of_nothing_are_counted():
    peer = Peer()
    peer.send(HEADERS, 0, 1, peer.block()[:4])
    for _ in range(IDLE_FRAMES + 1):
        if not peer.connection.closed:
            peer.send(CONTINUATION, 0, 1, b"")
    assert peer.code() is Code.ENHANCE_YOUR_CALM


def test_calls_that_are_reset_as_soon_as_they_are_opened_are_counted():
    peer = Peer()
    for number in range(1, 2 * IDLE_FRAMES + 4, 2):
        if not peer.connection.closed:
            peer.send(HEADERS, END_HEADERS, number, peer.block())
            peer.send(RST_STREAM, 0, number, frames.Code.CANCEL.to_bytes(4))
    assert peer.code() is Code.ENHANCE_YOUR_CALM
    assert all(call.gone for call in peer.calls)


def test_who_pings_now_and_then_is_no_flood():
    peer = Peer()
    for _ in range(5 * IDLE_FRAMES):
        peer.now_s += 2 * IDLE_S / IDLE_FRAMES
        peer.send(PING, 0, 0, bytes(8))
    assert not peer.connection.closed


def test_one_call_too_many_is_refused_so_that_the_client_may_try_again():
    peer = Peer(Limits(calls=1))
    peer.open(1)
    peer.send(HEADERS, END_HEADERS, 3, peer.block())
    (refused,) = peer.answers()
    assert (refused.kind, refused.stream) == (RST_STREAM, 3)
    assert refused.payload == Code.REFUSED_STREAM.to_bytes(4)
    peer.send(RST_STREAM, 0, 1, bytes(4))
    peer.open(5)


def test_more_data_than_a_call_may_send_resets_it_alone():
    peer = Peer()
    call, other = peer.open(1), peer.open(3)
    peer.message(b"first", 1)
    peer.message(b"second", 1)
    while not call.gone:
        peer.message(bytes(16_000), 1)
    (frame,) = peer.answers(RST_STREAM)
    assert (frame.stream, frame.payload) == (1, Code.FLOW_CONTROL_ERROR.to_bytes(4))
    assert not other.gone
    assert peer.connection.buffered == 0


def test_until_our_settings_are_acknowledged_the_protocols_window_holds():
    peer = Peer(begin=False)
    peer.send_raw(frames.PREFACE + frames.settings({}))
    early = peer.open(1)
    for _ in range(4):
        peer.send(DATA, 0, 1, b"\0\0\x10\0\0" + bytes(15_995))
    assert not early.gone
    peer.send(SETTINGS, ACK)
    late = peer.open(3)
    for _ in range(WINDOW // 16_000):
        peer.send(DATA, 0, 3, bytes(16_000))
    assert not late.gone
    peer.send(DATA, 0, 3, bytes(16_000))
    peer.send(DATA, 0, 1, bytes(16_000))
    assert (early.gone, late.gone) == (True, True)


def test_a_request_over_the_limit_is_refused_with_a_status():
    peer = Peer(Limits(message=100))
    peer.open()
    peer.send(DATA, 0, 1, b"\0" + (101).to_bytes(4))
    end = peer.answers(HEADERS)[0]
    assert peer.fields(end)["grpc-status"] == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    assert peer.connection.buffered == 0


def test_requests_that_are_not_whole_take_no_more_than_the_connection_may():
    peer = Peer(Limits(message=1_000_000, buffered=50_000))
    numbers = range(1, 21, 2)
    for number in numbers:
        peer.open(number)
    for number in numbers:
        peer.send(DATA, 0, number, b"\0" + (900_000).to_bytes(4) + bytes(10_000))
        assert peer.connection.buffered <= 50_000
    assert peer.answers(HEADERS), "some were refused"
    assert len(peer.connection.calls) == 4


# ---- windows ----------------------------------------------------------------------------------------------------------


def small_window(peer: Peer, size: int) -> None:
    peer.send(SETTINGS, 0, 0, INITIAL + size.to_bytes(4))
    peer.answers()


def sent(peer: Peer, stream: int = 1) -> bytes:
    return b"".join(frame.payload for frame in peer.answers(DATA) if frame.stream == stream)


def test_a_response_waits_for_the_calls_window():
    peer = Peer()
    small_window(peer, 10)
    call = peer.open()
    room: list[bool] = []
    call.follow(lambda _: None, lambda: None, lambda: room.append(call.room))
    call.send(b"0123456789")
    assert sent(peer) == b"\0\0\0\0\x0a01234"
    assert (call.room, room) == (False, [])
    peer.send(WINDOW_UPDATE, 0, 1, (3).to_bytes(4))
    assert sent(peer) == b"567"
    peer.send(WINDOW_UPDATE, 0, 1, (100).to_bytes(4))
    assert sent(peer) == b"89"
    assert room == [True]


def test_the_status_waits_for_the_response():
    peer = Peer()
    small_window(peer, 5)
    call = peer.open(flags=END_STREAM)
    call.send(b"abc")
    call.finish(grpc.StatusCode.OK)
    assert peer.answers()[-1].kind == DATA
    peer.send(WINDOW_UPDATE, 0, 1, (9).to_bytes(4))
    body, end = peer.answers()
    assert (body.payload, peer.fields(end)["grpc-status"]) == (b"abc", "0")


def test_a_larger_initial_window_holds_for_open_calls_too():
    peer = Peer()
    small_window(peer, 0)
    call = peer.open()
    call.send(b"abc")
    assert sent(peer) == b""
    peer.send(SETTINGS, 0, 0, INITIAL + (100).to_bytes(4))
    assert sent(peer) == b"\0\0\0\0\3abc"


def test_calls_share_the_connections_window_in_turn():
    peer = Peer()
    peer.send(SETTINGS, 0, 0, INITIAL + (1 << 20).to_bytes(4))
    one, other = peer.open(1), peer.open(3)
    one.send(bytes(65_535))  # more than the connection's window, with its head
    other.send(b"small")
    first = peer.answers(DATA)
    assert sum(len(frame.payload) for frame in first) == frames.DEFAULT_WINDOW
    peer.send(WINDOW_UPDATE, 0, 0, (1000).to_bytes(4))
    rest = peer.answers(DATA)
    assert {frame.stream for frame in rest} == {1, 3}
    assert (one.room, other.room) == (True, True)


def test_nothing_is_given_to_a_full_transport():
    peer = Peer()
    call = peer.open()
    peer.transport.full = True
    call.send(b"later")
    assert (sent(peer), call.room) == (b"", False)
    peer.transport.full = False
    peer.connection.drained()
    assert (sent(peer), call.room) == (b"\0\0\0\0\5later", True)


def test_who_sends_again_when_there_is_room_does_not_nest():
    peer = Peer()
    call = peer.open()
    left = iter(range(5000))

    def again() -> None:
        if next(left, None) is not None:
            call.send(bytes(20_000))

    call.follow(lambda _: None, lambda: None, again)
    again()
    for _ in range(2000):
        peer.send(WINDOW_UPDATE, 0, 0, (1 << 16).to_bytes(4))
        peer.send(WINDOW_UPDATE, 0, 1, (1 << 16).to_bytes(4))
        peer.answers()
    assert next(left, None) is None


def test_windows_that_were_used_are_given_back():
    peer = Peer()
    call = peer.open()
    got: list[bytes] = []
    call.follow(got.append, lambda: None, lambda: None)
    chunk = 10_000
    for _ in range(CONNECTION_WINDOW // chunk * 3):
        peer.message(bytes(chunk))
    assert not call.gone
    assert len(got) == CONNECTION_WINDOW // chunk * 3
    given = {0: 0, 1: 0}
    for frame in peer.answers(WINDOW_UPDATE):
        given[frame.stream] += int.from_bytes(frame.payload)
    assert given[0] > 2 * CONNECTION_WINDOW - CONNECTION_WINDOW // 2
    assert given[1] > 3 * CONNECTION_WINDOW - 2 * WINDOW


async def test_a_long_request_that_is_being_taken_has_a_wide_window():
    peer = Peer()
    call = peer.open()
    taking = asyncio.ensure_future(call.receive())
    await asyncio.sleep(0)
    peer.message(b"short")
    assert await taking == b"short"
    assert not peer.answers(WINDOW_UPDATE)
    taking = asyncio.ensure_future(call.receive())
    await asyncio.sleep(0)
    peer.send(DATA, 0, 1, b"\0" + (WIDE - 100).to_bytes(4) + bytes(5))
    (given,) = peer.answers(WINDOW_UPDATE)
    assert int.from_bytes(given.payload) >= WIDE - WINDOW
    for _ in range((WIDE - 105) // 15_000):
        peer.send(DATA, 0, 1, bytes(15_000))
    peer.send(DATA, 0, 1, bytes((WIDE - 105) % 15_000))
    assert await taking == bytes(WIDE - 100)


async def test_requests_that_nobody_takes_are_not_made_room_for():
    peer = Peer()
    call = peer.open()
    for _ in range(WINDOW // 16_000):
        peer.message(bytes(15_995))
    assert all(frame.stream == 0 for frame in peer.answers(WINDOW_UPDATE))
    while peer.connection.buffered:
        assert await call.receive() == bytes(15_995)
    assert any(frame.stream == 1 for frame in peer.answers(WINDOW_UPDATE))


async def test_of_who_waits_for_a_turn_no_more_than_a_window_is_kept():
    """A request that is longer is taken as soon as somebody asks for it."""
    peer = Peer()
    call = peer.open()
    heard = asyncio.ensure_future(call.heard())
    await asyncio.sleep(0)
    whole = b"\0" + (3 * WINDOW).to_bytes(4) + bytes(3 * WINDOW)
    given, at = WINDOW, 0

    def send() -> None:
        nonlocal given, at
        while given and at < len(whole):
            piece = whole[at : at + min(given, 16_000)]
            peer.send(DATA, 0, 1, piece)
            given, at = given - len(piece), at + len(piece)
            given += sum(
                int.from_bytes(frame.payload)
                for frame in peer.answers(WINDOW_UPDATE)
                if frame.stream == 1
            )

    send()
    await heard
    assert (at, peer.connection.buffered) == (WINDOW, WINDOW)
    taking = asyncio.ensure_future(call.receive())
    await asyncio.sleep(0)
    given += sum(int.from_bytes(frame.payload) for frame in peer.answers(WINDOW_UPDATE))
    send()
    assert await taking == bytes(3 * WINDOW)
    assert peer.connection.buffered == 0


# ---- ends -------------------------------------------------------------------------------------------------------------


def test_a_drain_lets_calls_end_and_takes_no_more():
    peer = Peer()
    call = peer.open()
    peer.connection.drain()
    (going,) = peer.answers(GOAWAY)
    assert int.from_bytes(going.payload[:4]) == frames.STREAM_MASK
    peer.send(HEADERS, END_HEADERS, 3, peer.block())
    assert peer.answers()[0].payload == Code.REFUSED_STREAM.to_bytes(4)
    call.send(b"last")
    call.finish(grpc.StatusCode.OK)
    kinds = [frame.kind for frame in peer.answers()]
    assert kinds == [HEADERS, DATA, HEADERS, RST_STREAM, GOAWAY]
    assert peer.transport.closed


def test_frames_of_calls_that_have_ended_are_passed_over():
    peer = Peer()
    peer.open().finish(grpc.StatusCode.OK)
    peer.answers()
    peer.message(b"crossed", 1)
    peer.send(WINDOW_UPDATE, 0, 1, (9).to_bytes(4))
    peer.send(RST_STREAM, 0, 1, bytes(4))
    assert peer.answers() == []
    assert not peer.connection.closed


def test_a_lost_connection_loses_its_calls():
    peer = Peer()
    calls = [peer.open(1), peer.open(3)]
    peer.message(b"unread", 1)
    peer.connection.lost()
    assert all(call.gone for call in calls)
    assert peer.connection.buffered == 0
    calls[0].send(b"nobody reads it")
    calls[0].finish(grpc.StatusCode.OK)


@given(st.lists(st.binary(max_size=60), max_size=12))
def test_any_bytes_are_taken_or_end_the_connection(pieces):
    peer = Peer()
    for piece in pieces:
        if not peer.connection.closed:
            peer.send_raw(piece)
    assert peer.connection.closed == peer.transport.closed


FRAMES = st.builds(
    frames.frame,
    st.integers(0, 10),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D, 0xFF]),
    st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1]),
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([bytes(4), b"\0\0\0\1", bytes(8), INITIAL + bytes(4)]),
        st.just(Peer().block()),
        st.just(b"\0\0\0\0\2hi"),
    ),
)


@given(st.lists(FRAMES, max_size=40), st.booleans())
def test_any_frames_are_taken_or_end_the_connection(sequence, follow):
    peer = Peer(Limits(calls=3, message=100, buffered=300))
    for data in sequence:
        if peer.connection.closed:
            break
        before = len(peer.calls)
        peer.send_raw(data)
        for call in peer.calls[before:]:
            if follow:
                call.follow(lambda _: None, lambda: None, lambda: None)
            call.send(b"an answer")
    assert len(peer.connection.calls) <= 3
    assert 0 <= peer.connection.buffered <= 300 + frames.LARGEST_PAYLOAD
    peer.connection.lost()
    assert peer.connection.buffered == 0
