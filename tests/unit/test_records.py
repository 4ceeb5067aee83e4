"""Whatever is wrong with bytes that others wrote is one error."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.pilot.registry.consul import read_catalog, read_instances
from windward import registration
from windward.config.staged import committed_change
from windward.config.stored import decode_stored
from windward.records import read_json
from windward.store.protocol import Entry

DEEP = b'{"object":' + b"[" * 5000 + b"]" * 5000 + b"}"
NOT_TEXT = b'{"object":{"\xff":1}}'
BROKEN = [DEEP, NOT_TEXT, b"", b"{", b"[]", b"null"]


def test_json_is_read():
    assert read_json(b'{"a": [1, null]}', dict[str, Any]) == {"a": [1, None]}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (DEEP, "nested too deeply"),
        (NOT_TEXT, "not UTF-8"),
        (b"[]", "Expected"),
        (b"{", "truncated"),
    ],
)
def test_what_is_wrong_is_said(raw: bytes, why: str):
    with pytest.raises(msgspec.DecodeError, match=why):
        read_json(raw, dict[str, Any])


@pytest.mark.parametrize("raw", BROKEN)
def test_a_broken_record_of_the_store_is_a_finding(raw: bytes):
    made, (finding,) = decode_stored(Entry("/k", raw, 1, 1, 1, 0))
    assert made is None
    assert "the stored record is broken" in finding.message
    assert not committed_change(Entry("/k", raw, 1, 1, 1, 0))


@pytest.mark.parametrize("raw", BROKEN)
def test_a_broken_registration_is_one_error(raw: bytes):
    with pytest.raises(msgspec.DecodeError):
        registration.decode(raw)


def test_what_consul_answers_may_be_no_text_and_nested_as_it_likes():
    for raw in (
        b'{"web": ["\xff\xfe"], "\xff": []}',
        b'{"web": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ):
        with pytest.raises(msgspec.DecodeError):
            read_catalog(raw)
    with pytest.raises(msgspec.DecodeError):
        read_instances(b'[{"Node": {"Node": "\xff"}, "Service": {}}]')
