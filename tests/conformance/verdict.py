"""Our verdict about an object, as the public entry point gives it."""

from __future__ import annotations

from typing import Any

from windward.config.decode import decode_object
from windward.config.finding import Severity

GROUPS = {
    "networking": "networking.istio.io/v1",
    "security": "security.istio.io/v1",
}


def judge(raw: dict[str, Any], *, valid: bool, warning: bool | None) -> str:
    """Why our verdict is not the expected one; empty when it is. ``warning`` None: either way."""
    _, findings = decode_object(raw)
    errors = [item for item in findings if item.severity is Severity.ERROR]
    said = "; ".join(f"{item.path}: {item.message}" for item in findings)[:300]
    if not valid:
        if any(item.code not in {"not-supported", "unknown-kind"} for item in errors):
            return ""
        return (
            f"should be refused: {said or 'accepted'}"
            if not errors
            else f"refused only as not supported: {said}"
        )
    if errors:
        return f"should be accepted: {said}"
    if warning is not None and warning != bool(findings):
        return f"should {'' if warning else 'not '}warn: {said or 'nothing said'}"
    return ""
