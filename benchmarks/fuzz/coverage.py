"""Which lines of some modules an execution reaches, pair by pair: what ran, and what ran before it in the same function.

Tracing costs some twenty times what it traces, so that one execution in ``EVERY`` is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable
from types import FrameType, ModuleType
from typing import Any, Final

EVERY: Final = 64


class Coverage:
    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self._files = frozenset(str(module.__file__) for module in modules)
        self.pairs: set[tuple[str, int, int]] = set()
        """(file, line before, line), lines of one call."""

    @property
    def lines(self) -> int:
        return len({(file, line) for file, _, line in self.pairs})

    def traced(self, call: Callable[[], Hashable]) -> tuple[Hashable, bool]:
        """What a call returns, and whether it reached anything new."""
        before = len(self.pairs)
        outer = sys.gettrace()
        sys.settrace(self._entered)
        try:
            outcome = call()
        finally:
            sys.settrace(outer)
        return outcome, len(self.pairs) > before

    def _entered(self, frame: FrameType, event: str, given: Any) -> Any:
        del event, given
        file = frame.f_code.co_filename
        if file not in self._files:
            return None
        pairs, last = self.pairs, frame.f_lineno

        def reached(inner: FrameType, event: str, given: Any) -> Any:
            nonlocal last
            del event, given
            pairs.add((file, last, inner.f_lineno))
            last = inner.f_lineno
            return reached

        return reached
