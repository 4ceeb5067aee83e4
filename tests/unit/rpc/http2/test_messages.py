"""Messages out of bytes: however they are cut, packed, or too long."""

from __future__ import annotations

import gzip
import zlib

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windward.rpc.errors import RefusedError
from windward.rpc.http2.messages import Messages


def packed(data: bytes, flag: int = 0) -> bytes:
    return bytes((flag,)) + len(data).to_bytes(4) + data


@given(st.lists(st.binary(max_size=50), max_size=10), st.lists(st.integers(1, 30)))
def test_messages_are_the_same_however_their_bytes_are_cut(wanted, cuts):
    whole = b"".join(map(packed, wanted))
    messages, got, at = Messages(50), [], 0
    for cut in [*cuts, len(whole)]:
        got += messages.feed(whole[at : at + cut])
        at += cut
    assert (got, len(messages)) == (wanted, 0)


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_packed_messages(encoding, pack):
    messages = Messages(100, encoding)
    assert messages.feed(packed(pack(b"hello"), 1) + packed(b"plain")) == [b"hello", b"plain"]


@pytest.mark.parametrize(
    ("encoding", "data", "code"),
    [
        ("identity", packed(b"x", 1), grpc.StatusCode.UNIMPLEMENTED),
        ("br", packed(b"x", 1), grpc.StatusCode.UNIMPLEMENTED),
        ("gzip", packed(b"no gzip", 1), grpc.StatusCode.INVALID_ARGUMENT),
        ("gzip", packed(gzip.compress(bytes(101)), 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("gzip", packed(gzip.compress(bytes(50))[:-9], 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("identity", b"\0" + (101).to_bytes(4), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_what_cannot_be_taken_is_refused(encoding, data, code):
    with pytest.raises(RefusedError) as caught:
        Messages(100, encoding).feed(data)
    assert caught.value.code is code
