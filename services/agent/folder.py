"""The folder that an agent works in: its state folder, or, when nothing can be written there, a passing one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windward.telemetry.logging import get_logger

log = get_logger()


@contextmanager
def working_folder(state_dir: str) -> Iterator[Path]:
    """Enter it, for Envoy's socket has a relative path; gives the state folder's absolute one. Raises OSError.

    On a read-only disk the socket lies in a folder that goes with the agent; nothing is kept for a restart then.
    """
    folder = Path(state_dir).absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o711)
    if os.access(folder, os.W_OK):
        os.chdir(folder)
        yield folder
        return
    with tempfile.TemporaryDirectory(
        prefix="windward-agent-", ignore_cleanup_errors=True
    ) as passing:
        Path(passing).chmod(0o711)
        os.chdir(passing)
        log.error(
            "agent.state_folder_read_only",
            folder=str(folder),
            consequence="nothing is kept for a restart; what is there is used",
            mend="give --state-dir a folder that this user can write",
        )
        yield folder
