"""Who may see the views over HTTP: a certificate decides, or on loopback a token that only this user's files hold.

    certificate of the administrator or the control plane      from anywhere
    bearer token of --admin-token-file (0600)                   from loopback
    anybody                                                     from loopback, if --admin-open-on-loopback says so

The reasons: docs/decisions/0006-admin-api.md.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from services.pilot.api.access import Access
from windward.process import FatalError
from windward.rpc.http import Request, Response

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", ""})
LEAST_TOKEN = 32
"""Characters."""


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    access: Access
    token: str = ""
    """Empty: none is taken."""
    open_on_loopback: bool = False

    def refuses(self, request: Request) -> Response | None:
        """Why a caller may not see anything; None when it may."""
        if request.identity is not None:
            if self.access.may_read(request.identity):
                return None
            return _refusal(403, f"{request.identity} may not look into Pilot")
        if not _is_loopback(request.peer):
            return _refusal(
                401,
                "a certificate of the administrator or the control plane is required: use https:// here, "
                "or `windward debug`",
            )
        if self.open_on_loopback:
            # A page in a browser can make its own name stand for 127.0.0.1; it cannot choose this header.
            host = request.headers.get("host", "").rpartition(":")
            name = host[0] if host[0] and host[2].isdigit() else "".join(host)
            if name.lower() in LOOPBACK_NAMES:
                return None
            return _refusal(403, "the Host header is not loopback's")
        if self._is_bearer(request):
            return None
        return _refusal(
            401,
            "a bearer token (--admin-token-file) or a certificate (https://) is required; or use `windward debug`",
        )

    def _is_bearer(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return bool(
            self.token
            and scheme.lower() == "bearer"
            and secrets.compare_digest(given.strip().encode(), self.token.encode())
        )


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _refusal(status: int, reason: str) -> Response:
    return Response(status, reason.encode() + b"\n")


def token_of(path: str) -> str:
    """The token in a file that only its owner may read; a new one is made where there is none. Empty path: no token."""
    if not path:
        return ""
    try:
        return _existing(Path(path)) or _fresh(Path(path))
    except OSError as error:
        raise FatalError(f"--admin-token-file {path}: {error.strerror}") from error


def _existing(path: Path) -> str:
    try:
        held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with os.fdopen(held, "rb") as file:
        if os.fstat(held).st_mode & 0o077:
            raise FatalError(
                f"--admin-token-file {path}: others may read it; chmod 600 it, or remove it to have a new one made"
            )
        token = file.read(4096).decode("ascii", "replace").strip()
    if len(token) < LEAST_TOKEN or not token.isprintable() or " " in token:
        raise FatalError(
            f"--admin-token-file {path}: no token of {LEAST_TOKEN} characters or more; remove it to have one made"
        )
    return token


def _fresh(path: Path) -> str:
    token = secrets.token_urlsafe(32)
    held = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(held, "w") as file:
        file.write(token + "\n")
    return token
