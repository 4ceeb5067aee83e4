"""What the rules say about a spec, in short: ``path code``; warnings with a question mark. Not what is not built yet."""

from __future__ import annotations

from typing import Any

from windward.config.decode import decode_object
from windward.config.finding import Severity

NETWORKING = "networking.istio.io/v1"


def judged(
    kind: str, spec: dict[str, Any], api_version: str = NETWORKING, **metadata: Any
) -> list[str]:
    raw = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "a", "namespace": "shop", **metadata},
        "spec": spec,
    }
    _, findings = decode_object(raw)
    return [
        f"{item.path.removeprefix('spec.')} {item.code}{'?' * (item.severity is Severity.WARNING)}"
        for item in findings
        if item.code != "not-supported"
    ]
