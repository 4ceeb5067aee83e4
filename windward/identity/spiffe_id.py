"""SPIFFE ids: parsed once, by one strict grammar, and never taken apart as text afterwards.

    spiffe://<trust domain>[/<segment>]*

Source: SPIFFE-ID standard, sections 2.1 (trust domain: lower-case letters, digits, ``.-_``), 2.2 (path: letters,
digits, ``.-_``; no empty, ``.`` or ``..`` segment, no trailing slash) and 2.3 (2,048 bytes; trust domain 255).
Workload ids follow Istio: ``/ns/<namespace>/sa/<service account>``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SCHEME: Final = "spiffe://"
LIMIT_BYTES: Final = 2048
TRUST_DOMAIN_LIMIT_BYTES: Final = 255
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]+")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]+")


class SpiffeIdError(ValueError):
    """Not a SPIFFE id; says which rule it breaks."""


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A valid id. Made by ``parse`` or ``workload_id``, not by the constructor."""

    trust_domain: str
    path: str
    """Empty, or ``/`` and segments."""

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Raises SpiffeIdError for anything that the standard does not allow."""
        if not text:
            raise SpiffeIdError("a SPIFFE id cannot be empty")
        if len(text.encode(errors="surrogatepass")) > LIMIT_BYTES:
            raise SpiffeIdError(f"a SPIFFE id has at most {LIMIT_BYTES} bytes")
        if not text.startswith(SCHEME):
            raise SpiffeIdError(f"a SPIFFE id begins with {SCHEME}")
        trust_domain, slash, rest = text[len(SCHEME) :].partition("/")
        check_trust_domain(trust_domain)
        if slash:
            _check_path(rest)
        return cls(trust_domain, slash + rest)

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"

    @property
    def workload(self) -> tuple[str, str] | None:
        """(namespace, service account) of an id of Istio's form; None for any other."""
        parts = self.path.split("/")
        if len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa":
            return parts[2], parts[4]
        return None

    @property
    def namespace(self) -> str:
        """Empty when the id is not of Istio's form."""
        return self.workload[0] if self.workload else ""

    @property
    def service_account(self) -> str:
        """Empty when the id is not of Istio's form."""
        return self.workload[1] if self.workload else ""


def workload_id(trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
    """The id of a service account. Raises SpiffeIdError where a name would not be one path segment."""
    for name in (namespace, service_account):
        if not _SEGMENT.fullmatch(name):
            raise SpiffeIdError(
                f"{name!r} cannot stand in a SPIFFE id: letters, digits, '.', '-', '_' only"
            )
    return SpiffeId.parse(f"{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}")


def check_trust_domain(name: str) -> None:
    """Raises SpiffeIdError for a trust domain that the standard does not allow."""
    if not name:
        raise SpiffeIdError("the trust domain is missing")
    if len(name) > TRUST_DOMAIN_LIMIT_BYTES:
        raise SpiffeIdError(f"a trust domain has at most {TRUST_DOMAIN_LIMIT_BYTES} bytes")
    if not _TRUST_DOMAIN.fullmatch(name):
        raise SpiffeIdError("a trust domain has lower-case letters, digits, '.', '-' and '_' only")


def _check_path(rest: str) -> None:
    segments = rest.split("/")
    if segments[-1] == "" and "" not in segments[:-1]:
        raise SpiffeIdError("a path has no trailing slash")
    for segment in segments:
        if segment == "":
            raise SpiffeIdError("a path has no empty segment")
        if segment in {".", ".."}:
            raise SpiffeIdError("a path has no dot segment")
        if not _SEGMENT.fullmatch(segment):
            raise SpiffeIdError("a path has letters, digits, '.', '-' and '_' only")
