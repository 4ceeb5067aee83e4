"""What ``windward-agent WORD`` does besides running the agent. Each is imported only when it is asked for.

windward-agent [--flags]        run the agent
windward-agent netfilter ...    set up, compare or take away the interception rules
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence


def _netfilter(argv: Sequence[str]) -> int:
    from services.agent.netfilter.command import main

    return main(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"netfilter": _netfilter}


def main() -> None:
    """Run the command that the first word names, or the agent when it names none."""
    argv = sys.argv[1:]
    command = COMMANDS.get(argv[0]) if argv else None
    if command is not None:
        sys.exit(command(argv[1:]))
    from services.agent.main import main as run_agent

    run_agent()
