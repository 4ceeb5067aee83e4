"""Bytes that somebody else wrote -> what they say, as JSON: one error for all that may be wrong with them."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def read_json(raw: bytes, kind: type[T]) -> T:
    """Raises msgspec.DecodeError: for what is no JSON or not of the kind, and for what msgspec has other errors for,
    text that is not UTF-8 and nesting that is deeper than Python goes.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"text is not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise msgspec.DecodeError("nested too deeply") from error
