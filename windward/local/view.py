"""What ``windward mesh up`` shows: one line a part while it comes up, then the proof and the next commands.

On a terminal the lines are redrawn in place; elsewhere each change is one plain line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from windward.local.addresses import Mode
from windward.local.mesh import Mesh, Part, State
from windward.local.prove import Check

MARKS = {
    State.WAITING: "[dim]·[/dim]",
    State.STARTING: "[yellow]…[/yellow]",
    State.READY: "[green]✔[/green]",
    State.STOPPED: "[dim]-[/dim]",
}

LOOPBACK_DIFFERENCES = (
    "loopback mode: every workload has its own 127.x address, and calls others by http_proxy through its sidecar. "
    "What differs: nothing is intercepted, so a process on this machine can reach an application directly, and plain "
    "TCP services are not proxied on the way out."
)


class View:
    """Shows a mesh coming up. Use as a context manager around ``mesh.up()``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.mesh: Mesh | None = None
        self._live: Live | None = None
        self._shown: dict[str, State] = {}

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self.refresh()
            self._live.stop()

    def refresh(self) -> None:
        """Draw again: a part has changed."""
        if self.mesh is None:
            return
        if self._live is not None:
            self._live.update(parts_table(self.mesh.parts.values()))
            return
        for part in list(self.mesh.parts.values()):
            if self._shown.get(part.name) is not part.state:
                self._shown[part.name] = part.state
                self.console.print(
                    f"{part.name:<16} {part.state.value:<9} {part.address}", highlight=False
                )


def parts_table(parts: Iterable[Part]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for part in list(parts):
        if part.what == "application":
            continue
        table.add_row(MARKS[part.state], part.name, f"[dim]{part.what}[/dim]", part.address)
    return table


def proof_table(checks: Iterable[Check]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "proved", "expected", "seen"):
        table.add_column(column, overflow="fold")
    for check in checks:
        mark = "[green]✔[/green]" if check.ok else "[red]✘[/red]"
        table.add_row(mark, check.check, check.expected, check.seen)
    return table


def show_mode(console: Console, mesh: Mesh) -> None:
    if mesh.mode is Mode.NAMESPACES:
        how = mesh.options.interception.upper()
        console.print(
            f"mode: network namespaces, traffic intercepted by iptables ({how})", highlight=False
        )
        return
    reason = f" ({mesh.mode_reason})" if mesh.mode_reason else ""
    console.print(f"mode: {LOOPBACK_DIFFERENCES}{reason}", highlight=False)


def show_next(console: Console, mesh: Mesh) -> None:
    """The five commands to try next."""
    console.print(
        f"\nThe Bookshop is open at [bold]{mesh.gateway_url}[/bold]. In another shell:",
        highlight=False,
    )
    for command, what in (
        (f"curl -s {mesh.gateway_url}/1", "ask for a book"),
        (f"curl -s -H 'end-user: tester' {mesh.gateway_url}/1", "be routed to reviews v2"),
        (".venv/bin/windward proxy status", "which Envoy has what"),
        (
            ".venv/bin/windward get virtualservice reviews -n bookshop -o yaml",
            "how reviews are split",
        ),
        (".venv/bin/windward describe virtualservice reviews -n bookshop", "who has accepted it"),
    ):
        console.print(f"  {command}   [dim]# {what}[/dim]", highlight=False, soft_wrap=True)
    console.print("\nCtrl-C stops all of it.", highlight=False)
