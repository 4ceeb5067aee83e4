"""The file's bytes: read back as they were written, by their owner; anything else is refused with a reason."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.xds_proxy import last_good
from services.agent.xds_proxy.cache import Accepted, Held
from services.agent.xds_proxy.last_good import MAGIC, Owner, State, UnusableError, decode, encode
from windward.rpc.credentials import TlsMaterial
from windward.xds.resource import CLUSTER, ENDPOINT

OWNER = Owner("spiffe://cluster.local/ns/shop/sa/reviews", "sidecar~10.0.0.7~reviews-v1.shop~x")
STATE = State(
    {
        CLUSTER: Accepted({"a": Held("1", b"entry a"), "b": Held("2", b"entry b")}, answered=True),
        ENDPOINT: Accepted({"a": Held("3", bytes(range(256)))}, {"gone"}, answered=True),
    },
    revision="41",
    saved_at=1_700_000_000.5,
    material=TlsMaterial(b"chain", b"the key", b"roots"),
)
RAW = encode(STATE, OWNER)

texts = st.text(max_size=20)
accepted = st.builds(
    Accepted,
    st.dictionaries(texts, st.builds(Held, texts, st.binary(max_size=40)), max_size=4),
    st.sets(texts, max_size=3),
    st.just(value=True),
)
states = st.builds(
    State,
    st.dictionaries(texts, accepted, max_size=3),
    texts,
    st.floats(0, 1e10),
    st.none() | st.builds(TlsMaterial, st.binary(), st.binary(), st.binary()),
)


@given(states, texts, texts)
def test_what_was_written_is_what_is_read(state, identity, node):
    owner = Owner(identity, node)
    assert decode(encode(state, owner), owner) == state


def test_what_nobody_has_answered_is_not_kept():
    state = State({CLUSTER: Accepted()}, "", 0.0)
    assert decode(encode(state, OWNER), OWNER).types == {}


@pytest.mark.parametrize(
    "owner",
    [Owner(OWNER.identity + "2", OWNER.node_id), Owner(OWNER.identity, "sidecar~10.0.0.8~x~y")],
    ids=["identity", "node"],
)
def test_another_owner_is_refused(owner):
    with pytest.raises(UnusableError, match="belongs to") as refused:
        decode(RAW, owner)
    assert OWNER.identity in str(refused.value)
    assert owner.node_id in str(refused.value)


@pytest.mark.parametrize(("number", "age"), [(0, "older"), (2, "newer"), (65535, "newer")])
def test_another_format_is_refused_whatever_else_is_in_it(number, age):
    other = MAGIC + number.to_bytes(2, "big") + b"anything"
    with pytest.raises(
        UnusableError, match=f"an? {age} agent wrote it: format {number}"
    ) as refused:
        decode(other + bytes(40), OWNER)
    assert f"reads {last_good.FORMAT}" in str(refused.value)


def test_every_cut_is_refused():
    for length in range(len(RAW)):
        with pytest.raises(UnusableError, match=r"cut off|empty|not a state"):
            decode(RAW[:length], OWNER)


def test_what_was_added_is_refused():
    with pytest.raises(UnusableError, match="added to"):
        decode(RAW + b"x", OWNER)


@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
def test_every_changed_byte_is_refused(at, change):
    broken = bytearray(RAW)
    broken[at] ^= change
    with pytest.raises(UnusableError):
        decode(bytes(broken), OWNER)


@given(st.binary(max_size=300))
def test_no_bytes_do_worse_than_to_be_refused(raw):
    for content in (raw, MAGIC + raw, RAW[:40] + raw):
        with pytest.raises(UnusableError):
            decode(content, OWNER)


def test_a_body_of_another_shape_under_a_good_digest_is_refused(monkeypatch):
    """An agent of the same format with another body: a mistake of ours, and still no crash."""
    monkeypatch.setattr(msgspec.msgpack, "encode", lambda _: b"\x93\x01\x02\x03")
    with pytest.raises(UnusableError, match="not readable"):
        decode(encode(STATE, OWNER), OWNER)


def test_the_reason_never_shows_the_key():
    for length in range(0, len(RAW), 7):
        with pytest.raises(UnusableError) as refused:
            decode(RAW[:length], OWNER)
        assert "the key" not in str(refused.value)
