"""What can go wrong with interception, in words for the one who asked for it."""

from __future__ import annotations


class NetfilterError(Exception):
    """Interception cannot be set up, compared or removed: one line, with what to do."""


class InterceptionError(NetfilterError, ValueError):
    """A setting that could not be a rule: which flag, what was given, how to write it."""

    def __init__(self, flag: str, message: str) -> None:
        super().__init__(f"{flag}: {message}")
        self.flag = flag
