"""The lean client of the Workload API: what it understands does not depend on how the bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.workload_streams import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    STREAM,
    WINDOW_UPDATE,
    Ended,
    Watched,
    frame,
)

MESSAGES = [b"first", b"", b"x" * 40_000]


def server_says() -> bytes:
    """Settings, headers, a ping, and messages of which some lie across frames."""
    body = b"".join(b"\0" + len(item).to_bytes(4, "big") + item for item in MESSAGES)
    pieces = [body[at : at + 16_384] for at in range(0, len(body), 16_384)]
    return (
        frame(SETTINGS, 0, 0)
        + frame(SETTINGS, ACK, 0)
        + frame(HEADERS, END_HEADERS, STREAM, b"\x88")
        + frame(PING, 0, 0, b"12345678")
        + b"".join(frame(DATA, 0, STREAM, piece) for piece in pieces)
        + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1")
    )


@given(st.lists(st.integers(1, 20_000), max_size=12))
def test_messages_are_whole_and_answers_the_same_however_the_bytes_come(cuts: list[int]):
    watched, said = Watched(), server_says()
    answers, messages = b"", []
    for size in [*cuts, len(said)]:
        if not said:
            break
        answer, found = watched.take(said[:size])
        said = said[size:]
        answers += answer
        messages += found
    assert messages == MESSAGES
    assert answers.startswith(frame(SETTINGS, ACK, 0) + frame(PING, ACK, 0, b"12345678"))
    given_back = answers.count(frame(WINDOW_UPDATE, 0, STREAM, b"\0\0\x40\0"))
    assert given_back == len(MESSAGES[2]) // 16_384


@pytest.mark.parametrize(
    "end",
    [
        frame(RST_STREAM, 0, STREAM, b"\0\0\0\0"),
        frame(GOAWAY, 0, 0, bytes(8)),
        frame(HEADERS, END_HEADERS | END_STREAM, STREAM, b"\x88"),
    ],
)
def test_the_end_of_a_stream_is_told(end: bytes):
    with pytest.raises(Ended):
        Watched().take(frame(SETTINGS, 0, 0) + end)


def test_a_closed_connection_is_the_end():
    with pytest.raises(Ended):
        Watched().take(b"")
