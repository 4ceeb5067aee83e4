"""A scope that can be ended from outside, from within any wait, without an error."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Ending:
    """``end()`` leaves the ``async with`` block wherever it waits; what was cancelled by it goes no further.

    As asyncio.timeout, with a call in place of a clock.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._task: asyncio.Task[object] | None = None

    def end(self, reason: str) -> None:
        if self._task is not None and not self.reason:
            self.reason = reason
            self._task.cancel()

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        task, self._task = self._task, None
        assert task is not None
        return bool(self.reason and kind is asyncio.CancelledError and task.uncancel() == 0)
