"""``windward-agent wait``: for an application's entry point, until the sidecar beside it can serve."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

DEFAULT_URL = "http://localhost:15021/healthz/ready"


def main(argv: Sequence[str]) -> int:
    """0 once it can serve, 1 when that took too long."""
    parser = argparse.ArgumentParser(
        prog="windward-agent wait", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--url", default=DEFAULT_URL, help="what to ask (default: %(default)s)")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="in all (default: 60)")
    parser.add_argument("--period-s", type=float, default=0.5, help="between asks (default: 0.5)")
    parser.add_argument(
        "--request-timeout-s", type=float, default=0.5, help="of one ask (default: 0.5)"
    )
    options = parser.parse_args(argv)
    url = urlsplit(options.url)
    if url.scheme != "http" or not url.hostname:
        parser.error(f"--url {options.url}: must be http://host:port/path")
    host, port, path = url.hostname, url.port or 80, url.path or "/"
    said = wait(
        lambda: ask(host, port, path, options.request_timeout_s),
        options.timeout_s,
        options.period_s,
    )
    if said:
        sys.stderr.write(f"windward-agent wait: not ready after {options.timeout_s:g} s: {said}\n")
        return 1
    return 0


def wait(
    problem: Callable[[], str],
    timeout_s: float,
    period_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Ask until there is no problem; the last one when the time is over."""
    deadline = clock() + timeout_s
    while said := problem():
        if clock() + period_s > deadline:
            return said
        sleep(period_s)
    return ""


def ask(host: str, port: int, path: str, timeout_s: float) -> str:
    """Why it is not ready; empty when it is."""
    connection = HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        said = response.read(4096).decode(errors="replace").strip()
    except (OSError, HTTPException) as error:
        return f"{host}:{port}: {error}"
    finally:
        connection.close()
    return "" if response.status == 200 else said or f"status {response.status}"
