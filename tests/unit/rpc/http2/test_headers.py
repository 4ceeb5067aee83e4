"""Header blocks: what a call's fields say, and what the answers' say to an HPACK decoder that is not ours."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from windward.rpc.http2.frames import Broken, Code
from windward.rpc.http2.headers import LARGEST_LIST, LONGEST_WORDS, Headers, Request, trailers


def read(**fields: str) -> Request:
    base = {":method": "POST", ":path": "/a.B/C", "content-type": "application/grpc+proto"}
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    return Headers().read(Encoder().encode([*{**base, **named}.items()]))


def decoded(block: bytes) -> dict[str, str]:
    fields: Any = Decoder().decode(block)
    return dict(fields)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1H", 3600.0),
        ("2M", 120.0),
        ("3S", 3.0),
        ("1500m", 1.5),
        ("250u", 0.00025),
        ("99999999n", 0.099999999),
        ("999999999S", None),
        ("S", None),
        ("-1S", None),
        ("1", None),
        ("٣S", None),
        ("", None),
    ],
)
def test_timeouts(text, seconds):
    assert read(grpc_timeout=text).timeout_s == seconds


def test_metadata_is_what_does_not_belong_to_the_protocol():
    request = read(te="trailers", user_agent="mine", x_bin="AAE,/w", broken_bin="?", x="y")
    assert request.metadata == (
        ("user-agent", "mine"),
        ("x-bin", b"\x00\x01"),
        ("x-bin", b"\xff"),
        ("x", "y"),
    )
    assert (request.method, request.encoding, request.refusal) == ("/a.B/C", "identity", "")


def test_more_than_16_kib_is_refused_before_it_is_kept():
    with pytest.raises(Broken) as caught:
        read(x="y" * LARGEST_LIST)
    assert caught.value.code is Code.ENHANCE_YOUR_CALM


@given(st.binary(max_size=200))
def test_any_block_is_read_or_breaks_the_connection(block):
    with suppress(Broken):
        assert isinstance(Headers().read(block), Request)


@given(st.integers(0, 16), st.text(st.characters(codec="utf-8"), max_size=300))
def test_a_status_is_read_as_it_was_said(code, words):
    fields = decoded(trailers(code, words))
    assert fields["grpc-status"] == str(code)
    if len(words.encode()) * 3 <= LONGEST_WORDS:
        assert unquote(fields.get("grpc-message", "")) == words


def test_long_words_are_cut():
    fields = decoded(trailers(3, "a" * 100_000))
    assert len(fields["grpc-message"]) == LONGEST_WORDS


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "x-c", "x-d-bin"]), st.sampled_from(["1", "2", "AAE", ""])
    ),
    max_size=5,
)


@given(st.lists(FIELDS, min_size=1, max_size=30), st.sampled_from([0, 40, 80, 4096]))
def test_what_is_remembered_of_blocks_is_what_they_say(lists, table):
    """Whatever the table keeps and drops between."""
    encoder, headers = Encoder(), Headers()
    encoder.header_table_size = table
    for fields in [*lists, *lists, *lists]:
        block = encoder.encode([(":path", "/a.B/C"), *fields])
        expected = Headers().read(Encoder().encode([(":path", "/a.B/C"), *fields]))
        assert headers.read(block) == expected


def test_a_call_that_is_said_in_the_same_bytes_again_is_not_decoded_again():
    encoder, headers = Encoder(), Headers()
    fields = [(":method", "POST"), (":path", "/a.B/C"), ("content-type", "application/grpc")]
    first, second, third = (headers.read(encoder.encode(fields)) for _ in range(3))
    assert first == second
    assert second is third
