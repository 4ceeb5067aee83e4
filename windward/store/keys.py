"""Where everything lies in the store. One root a mesh; one folder an area; every area has one writer."""

from __future__ import annotations

from typing import Final

ROOT: Final = "/windward/v1/"
CONFIG_AREA: Final = ROOT + "config"
"""Prefix of every object, and of APPLYING: one watch sees both, in order."""
CONFIG: Final = CONFIG_AREA + "/"
APPLYING: Final = CONFIG_AREA + ".applying"
"""Present while a change that is too large for one transaction is staged or carried out."""
CONFIG_MARK: Final = CONFIG_AREA + ".mark"
"""Written by a Pilot that wants to know that it has seen everything before: its own watch brings it back."""
HISTORY: Final = ROOT + "history/"
STAGING: Final = ROOT + "staging/"
REGISTRATIONS: Final = ROOT + "endpoint"
"""Above both of the next two: one watch sees them together."""
REGISTRATIONS_MARK: Final = REGISTRATIONS + ".mark"
"""As CONFIG_MARK, for registrations; one transaction writes both."""
ENDPOINTS: Final = ROOT + "endpoints/"
ENDPOINT_LEASES: Final = ROOT + "endpoint-leases/"
CA: Final = ROOT + "ca/"
PILOTS: Final = ROOT + "pilots/"
"""Where Pilots can be asked, each on a lease of its own; the address is the key."""


def config_key(group: str, kind: str, namespace: str, name: str) -> str:
    return f"{CONFIG}{group}/{kind}/{namespace}/{name}"


def history_key(
    group: str, kind: str, namespace: str, name: str, created_ms: int, generation: int
) -> str:
    """Numbers are padded so that keys sort as numbers; an object deleted and made again begins anew at generation 1."""
    return f"{HISTORY}{group}/{kind}/{namespace}/{name}/{created_ms:015d}-{generation:012d}"


def staging_key(change: str, number: int) -> str:
    return f"{STAGING}{change}/{number:06d}"


def pilot_key(address: str) -> str:
    return PILOTS + address


def endpoint_key(namespace: str, name: str) -> str:
    return f"{ENDPOINTS}{namespace}/{name}"


def endpoint_lease_key(namespace: str, name: str) -> str:
    """There as long as the workload's agent renews its lease; it has no value of its own."""
    return f"{ENDPOINT_LEASES}{namespace}/{name}"
