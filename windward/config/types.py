"""What specs are made of: the base Struct, bounded numbers, durations, and how names turn into JSON names."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_UNIT_S: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST_DURATION_S: Final = 315_576_000_000.0
LONGEST_DURATION_TEXT: Final = 64
"""Of google.protobuf.Duration: about 10,000 years."""


def json_name(name: str) -> str:
    """``http1_max_pending_requests`` -> ``http1MaxPendingRequests``; ``from_`` -> ``from``."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


class Spec(msgspec.Struct, frozen=True, kw_only=True, rename=json_name, forbid_unknown_fields=True):
    """Base of every message of a kind. Absent message or wrapper: None; repeated: tuple; map: dict."""


class Duration(float):
    """Seconds, written as in Go and protobuf: ``1.5s``, ``10ms``, ``1h30m``."""


def parse_duration(text: str) -> Duration:
    """Raises ValueError for anything but numbers with units, and beyond protobuf's range."""
    if len(text) > LONGEST_DURATION_TEXT:
        raise ValueError(f"a duration has at most {LONGEST_DURATION_TEXT} characters")
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text)
    parts = _PART.findall(body)
    if body == "0":
        return Duration(0)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise ValueError(f"{text!r} is not a duration: write it as 1.5s, 10ms or 1h30m")
    seconds = sign * sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if abs(seconds) > LONGEST_DURATION_S:
        raise ValueError(f"{text!r} is out of a duration's range")
    return Duration(seconds)


Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, Meta(ge=0, le=2**64 - 1)]
