"""Rows of measurements that have a bar: what, the figure, the bar, held or not."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    figure: float | None
    """None: there is none; ``why`` says why."""
    bar: float
    """The most that the figure may be."""
    why: str = ""

    @property
    def held(self) -> bool:
        return self.figure is not None and self.figure <= self.bar

    def __str__(self) -> str:
        said = "-" if self.figure is None else f"{self.figure:,.3f}".rstrip("0").rstrip(".")
        line = (
            f"{'held' if self.held else 'NOT HELD':<9} {self.name:<74} {said:>10}  bar {self.bar:g}"
        )
        return f"{line}  {self.why}" if self.why else line
