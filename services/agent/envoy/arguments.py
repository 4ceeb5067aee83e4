"""Envoy's command line. Pure. Source: https://www.envoyproxy.io/docs/envoy/latest/operations/cli"""

from __future__ import annotations

import ipaddress
import re

from services.agent.settings import Settings
from windward.process import FatalError

LEVELS = ("trace", "debug", "info", "warning", "error", "critical", "off")
_COMPONENT = re.compile(r"[a-z0-9_]+")


def arguments(settings: Settings, config: str, override: str = "") -> list[str]:
    """Everything after the program's name; ``override`` is merged over the file ``config``. Raises FatalError."""
    level, components = log_levels(settings.envoy_log_level)
    addresses = settings.instance_ips or (settings.address,)
    made = [
        "-c", config,
        "--drain-time-s", str(max(1, int(settings.listener_drain_time))),
        "--drain-strategy", "immediate",
        "--local-address-ip-version", "v6" if all(map(_is_v6, addresses)) else "v4",
        "--file-flush-interval-msec", str(max(1, int(settings.access_log_flush * 1000))),
        "--disable-hot-restart",
        "--allow-unknown-static-fields",
        # Istio's bootstrap and configuration use fields that Envoy calls deprecated: nothing a user could mend.
        "--skip-deprecated-logs",
        "--concurrency", str(settings.concurrency),
        "-l", level,
    ]  # fmt: skip
    if components:
        made += ["--component-log-level", components]
    if override:
        made += ["--config-yaml", override]
    return made


def log_levels(text: str) -> tuple[str, str]:
    """``info,misc:error`` -> the level, and the components' as Envoy takes them. Raises FatalError."""
    level, components = "warning", []
    for part in filter(None, (word.strip() for word in text.split(","))):
        component, colon, own = part.rpartition(":")
        known = own in LEVELS and (not colon or _COMPONENT.fullmatch(component))
        if not known:
            raise FatalError(
                f"--envoy-log-level {text}: {part!r} is no level or component:level; levels: {', '.join(LEVELS)}"
            )
        if colon:
            components.append(part)
        else:
            level = own
    return level, ",".join(components)


def _is_v6(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).version == 6
    except ValueError:
        return False
