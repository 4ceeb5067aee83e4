"""The context file: where a mesh's services are, and the administrator's certificate to reach them with.

Written by ``windward mesh up`` (mode 0600), read by the CLI and by users' programs. Paths in it may be relative to the
file's own folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from windward.records import read_json

DEFAULT_PATH: Final = Path(".windward/mesh/context.json")
ENVIRONMENT: Final = "WINDWARD_CONTEXT"


class ContextError(Exception):
    """No usable context file; says which one was tried and how to get one."""


class CitadelAddresses(msgspec.Struct, frozen=True):
    tls: str
    mtls: str


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses are ``host:port``; files are PEM."""

    pilot: str
    citadel: CitadelAddresses
    trust_domain: str
    trust_bundle_file: str
    certificate_file: str
    key_file: str
    metrics: dict[str, str] = {}
    gateway: str = ""
    mode: str = ""
    workloads: dict[str, str] = {}
    """Proxy name -> address, for people."""

    def read(self, field: str, beside: Path) -> bytes:
        """The bytes of one of the files that this context names."""
        path = beside / str(getattr(self, field))
        try:
            return path.read_bytes()
        except OSError as error:
            raise ContextError(f"{path}: {error.strerror}: is the mesh still up?") from error


def locate(explicit: str | None) -> Path:
    """``--context``, then $WINDWARD_CONTEXT, then the default below the current folder."""
    return Path(explicit or os.environ.get(ENVIRONMENT) or DEFAULT_PATH)


def load(path: Path) -> Context:
    """Raises ContextError when the file is absent or not a context."""
    try:
        return read_json(path.read_bytes(), Context)
    except FileNotFoundError:
        raise ContextError(
            f"no mesh at {path}: start one with `windward mesh up`, or name a context file with --context"
        ) from None
    except (OSError, msgspec.DecodeError) as error:
        raise ContextError(f"{path}: {error}") from error


def save(context: Context, path: Path) -> None:
    """Write whole or not at all, readable by its owner alone."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(context), indent=2) + b"\n")
    temporary.replace(path)
