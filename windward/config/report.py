"""Where validators say what they find: a path to write under, and findings shared by all of an object's reports."""

from __future__ import annotations

from collections.abc import Mapping

from windward.config.finding import Finding, Severity


class Report:
    """Findings below one field path. ``at`` goes deeper; all share one list."""

    def __init__(self, path: str = "", findings: list[Finding] | None = None) -> None:
        self.path = path
        self.findings: list[Finding] = [] if findings is None else findings

    def at(self, *steps: str | int) -> Report:
        """A field (text), or an element (number) of the field. A field without a name is one that can be seen: ``[""]``."""
        path = self.path
        for step in steps:
            if isinstance(step, int):
                path = f"{path}[{step}]"
            elif not step:
                path = f'{path}[""]'
            else:
                path = f"{path}.{step}" if path else step
        return Report(path, self.findings)

    def key(self, key: object) -> Report:
        """An entry of a map: ``labels["app"]``."""
        return Report(f'{self.path}["{key}"]', self.findings)

    def error(self, code: str, message: str, fix: str = "") -> None:
        self.findings.append(Finding(self.path, code, message, fix))

    def warn(self, code: str, message: str, fix: str = "") -> None:
        self.findings.append(Finding(self.path, code, message, fix, Severity.WARNING))

    def one_of(self, members: Mapping[str, object], *, required: bool = False) -> None:
        """At most one of these fields may be set (a protobuf oneof); exactly one when required."""
        given = [name for name, value in members.items() if value is not None]
        if len(given) > 1:
            self.error(
                "conflict", f"only one of {', '.join(members)} may be set, here: {', '.join(given)}"
            )
        elif required and not given:
            self.error("required", f"one of {', '.join(members)} must be set")

    @property
    def has_errors(self) -> bool:
        return any(finding.severity is Severity.ERROR for finding in self.findings)
