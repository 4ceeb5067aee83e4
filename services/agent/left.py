"""Whether the run before took the workload out of every proxy's endpoints: to them the next one is new, whatever is on disk.

A file that is there from a clean leave until the next start; a run that was killed leaves none, and its endpoint is known still.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


class LeftMark:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "left"

    def set(self) -> None:
        """The workload has left. A disk that cannot be written costs the next start two seconds, no more."""
        with suppress(OSError):
            self._path.touch(mode=0o600)

    def still_known(self, *, resumed: bool) -> bool:
        """Whether peers hold this endpoint for what an earlier run said of it: one is ``resumed``, and it had not left.

        The mark is gone then, whatever was resumed: a later start would believe it of the wrong run.
        """
        left = self._take()
        return resumed and not left

    def _take(self) -> bool:
        found = self._path.exists()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        return found
