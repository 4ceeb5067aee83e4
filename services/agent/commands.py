"""What ``windward-agent WORD`` does. Each is imported only when it is asked for.

windward-agent [flags]                  the sidecar, in a container of its own
windward-agent run [flags] -- CMD       sidecar and application as one: the application starts when the sidecar can serve
windward-agent wait                     until the sidecar can serve, for an entry point
windward-agent node [flags]             SPIFFE Workload API and SDS for all workloads of a node
windward-agent netfilter ...            set up, compare or take away the interception rules
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence


def _run(argv: Sequence[str]) -> int:
    from services.agent.main import main

    return main(["run", *argv])


def _wait(argv: Sequence[str]) -> int:
    from services.agent.wait import main

    return main(argv)


def _node(argv: Sequence[str]) -> int:
    from services.agent.workload_api.node import main

    return main(argv)


def _netfilter(argv: Sequence[str]) -> int:
    from services.agent.netfilter.command import main

    return main(argv)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "run": _run,
    "wait": _wait,
    "node": _node,
    "netfilter": _netfilter,
}


def main() -> None:
    """Run the command that the first word names, or the sidecar when it names none."""
    argv = sys.argv[1:]
    if not argv or argv[0].startswith("-"):
        from services.agent.main import main as run_sidecar

        sys.exit(run_sidecar(argv))
    command = COMMANDS.get(argv[0])
    if command is None:
        known = ", ".join(COMMANDS)
        sys.stderr.write(
            f"windward-agent: there is no command {argv[0]!r}; there are {known}, and the sidecar without one\n"
        )
        sys.exit(2)
    sys.exit(command(argv[1:]))
