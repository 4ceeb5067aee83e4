"""Which lines of some modules an execution reaches, pair by pair: what ran, and what ran before it in the same function.

Tracing costs some twenty times what it traces, so that one execution in ``EVERY`` is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

EVERY: Final = 64


def _lines_of(file: str) -> int:
    code = compile(Path(file).read_text(encoding="utf-8"), file, "exec")
    return len(set(_within(code)))


def _within(code: CodeType) -> Iterator[int]:
    """The lines of all functions below a code object; what runs at import is not theirs."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & CO_OPTIMIZED:
                yield from (
                    line for _, _, line in inner.co_lines() if line and line > inner.co_firstlineno
                )
            yield from _within(inner)


class Coverage:
    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self._files = frozenset(str(module.__file__) for module in modules)
        self.total = sum(map(_lines_of, self._files))
        """Lines within functions: what executions may reach."""
        self.pairs: set[tuple[str, int, int]] = set()
        """(file, line before, line), lines of one call."""

    @property
    def lines(self) -> int:
        """Of ``total``."""
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
