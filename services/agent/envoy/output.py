"""Envoy's stdout and stderr: a pipe that its user owns, copied to where the agent's own go.

Access logs open /dev/stdout anew, which only works on what Envoy's user may open: not another user's file or terminal,
and never a socket, as a service's stdout often is. A thread copies, so that a reader that stalls holds up Envoy and not
the agent.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

CHUNK_BYTES = 64 * 1024
LAST_WORDS_S = 1.0


class Output:
    """``fd`` is what Envoy writes to, for as long as the agent lives: an Envoy started again goes on in it."""

    def __init__(self, target: int, owner: int | None) -> None:
        read, self.fd = os.pipe()
        if owner is not None:
            os.fchown(self.fd, owner, owner)
        self._copying = threading.Thread(target=_copy, args=(read, target), daemon=True)
        self._copying.start()

    def close(self) -> None:
        """Call once Envoy is gone: its last words are copied first."""
        os.close(self.fd)
        self._copying.join(LAST_WORDS_S)


def _copy(read: int, target: int) -> None:
    while data := os.read(read, CHUNK_BYTES):
        # A target that is gone loses lines; Envoy must not stall for it.
        with suppress(OSError):
            while data:
                data = data[os.write(target, data) :]
    os.close(read)
