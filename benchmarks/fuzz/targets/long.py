"""Requests that Pilot reads in steps, against protobuf's reading of the whole.

Asserted: where protobuf takes a message, so does the reader, and agrees in every field that streams read; where it does not,
neither does the reader.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from random import Random
from types import ModuleType
from typing import Any

from google.protobuf.message import DecodeError

from benchmarks.fuzz.target import Single
from benchmarks.fuzz.targets.envelopes import MESSAGES, WORDS, Envelopes, Given
from benchmarks.fuzz.wire import mutate_message
from services.pilot.xds import long
from services.pilot.xds.long import Apart, taking_apart
from windward.slices import at_once

LISTS = ("resource_names_subscribe", "resource_names_unsubscribe", "resource_names")


class LongRequests(Single):
    modules: Sequence[ModuleType] = (long,)

    def seeds(self) -> Sequence[Given]:
        return [given for given in Envelopes().seeds() if given[0] != "response"]

    def mutate(self, random: Random, chosen: Given, other: Given) -> Given:
        return chosen[0], mutate_message(random, chosen[1], other[1], WORDS)

    def execute(self, given: Given) -> Hashable:
        kind, raw = given
        message = MESSAGES[kind]
        theirs, ours = _told(message.FromString, raw), _told(lambda r: _in_steps(message, r), raw)
        assert ours == theirs, f"protobuf: {theirs}; in steps: {ours}"
        if theirs is None:
            return "refused"
        apart = isinstance(_in_steps(message, raw), Apart)
        return kind, apart, *(min(len(part), 3) for part in theirs if isinstance(part, list | dict))


def _in_steps(message: Any, raw: bytes) -> Any:
    return at_once(taking_apart(message, raw, 0))


def _told(read: Any, raw: bytes) -> tuple[Any, ...] | None:
    """The fields that streams read; None for no message."""
    try:
        request = read(raw)
    except DecodeError:
        return None
    lists = [list(getattr(request, name)) for name in LISTS if hasattr(request, name)]
    brought = dict(getattr(request, "initial_resource_versions", {}))
    error = (request.HasField("error_detail"), request.error_detail.message)
    return (request.type_url, request.response_nonce, request.node.id, error, *lists, brought)
