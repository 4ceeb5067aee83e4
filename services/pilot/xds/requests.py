"""Requests as bytes in, events of windward.xds.stream out: both protocols, on ADS and on the services of one type.

Source: envoy/service/discovery/v3/discovery.proto; xDS protocol, "Singleton subscriptions", for services of one type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from services.pilot.xds.long import taking_apart
from windward.rpc.errors import invalid
from windward.slices import Work, at_once
from windward.xds.knowledge import BLOCK, blocks
from windward.xds.resource import (
    CLUSTER,
    ENDPOINT,
    EXTENSION,
    LISTENER,
    ROUTE,
    SECRET,
    TYPE_PREFIX,
)
from windward.xds.stream import DeltaRequest, DeltaStream, SotwRequest, SotwStream

MOST_NAMES: Final = 100_000
"""Of a request, and of all types of a stream."""
LONGEST_NAME: Final = 2048
"""Characters: names are kept as long as they are asked for."""

ADS: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"
SERVICES: Final = {
    "envoy.service.cluster.v3.ClusterDiscoveryService": ("Clusters", CLUSTER),
    "envoy.service.endpoint.v3.EndpointDiscoveryService": ("Endpoints", ENDPOINT),
    "envoy.service.listener.v3.ListenerDiscoveryService": ("Listeners", LISTENER),
    "envoy.service.route.v3.RouteDiscoveryService": ("Routes", ROUTE),
    "envoy.service.secret.v3.SecretDiscoveryService": ("Secrets", SECRET),
    "envoy.service.extension.v3.ExtensionConfigDiscoveryService": ("ExtensionConfigs", EXTENSION),
}
"""Service -> the end of its methods' names, after ``Stream`` and ``Delta``, and the one type that it is about."""

AnyStream = DeltaStream | SotwStream


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the two protocols, on all types or on one."""

    message: Any
    """The request's message class."""
    stream: type[DeltaStream | SotwStream]
    event: Callable[[Any, str], Work[Any]]
    only: str = ""
    """The type of a service that has one; empty: any."""

    def parsing(self, raw: bytes) -> Work[Any]:
        """The request, in steps; RefusedError for garbage."""
        try:
            return (yield from taking_apart(self.message, raw))
        except DecodeError as error:
            raise invalid("the request is not a discovery request") from error

    def of(self, request: Any) -> Any:
        """The event that a request is; RefusedError for a type that is not served here, or too many names."""
        return at_once(self.reading(request))

    def reading(self, request: Any) -> Work[Any]:
        """The same in steps."""
        type_url = request.type_url
        if self.only and not type_url:
            type_url = self.only
        if self.only and type_url != self.only:
            raise invalid(f"this service has {self.only} only, not {type_url[:200]!r}")
        if not type_url.startswith(TYPE_PREFIX):
            raise invalid(f"unknown type URL {type_url[:200]!r}")
        return (yield from self.event(request, type_url))


def _bounded(given: Any) -> Work[tuple[str, ...]]:
    """Names of a request, whatever holds them."""
    if len(given) > MOST_NAMES:
        raise invalid(f"more than {MOST_NAMES} resource names")
    names: list[str] = []
    rest = iter(given)
    while block := list(islice(rest, BLOCK)):
        if names:
            yield
        name = max(block, key=len)
        if len(name) > LONGEST_NAME:
            raise invalid(f"the resource name {name[:100]!r}... is longer than {LONGEST_NAME}")
        names += block
    return tuple(names)


def _versions(brought: Any) -> Work[dict[str, str]]:
    names = yield from _bounded(brought)
    found: dict[str, str] = {}
    for block in blocks(names):
        yield
        found.update((name, brought[name]) for name in block)
    return found


def _error(request: Any) -> str:
    """The text of a NACK; never empty for one."""
    return request.error_detail.message or "refused" if request.HasField("error_detail") else ""


def _delta_event(request: Any, type_url: str) -> Work[DeltaRequest]:
    nonce, subscribe = request.response_nonce, request.resource_names_subscribe
    brought = request.initial_resource_versions
    if nonce and not subscribe and not request.resource_names_unsubscribe and not brought:
        return DeltaRequest(type_url, nonce, _error(request))
    return DeltaRequest(
        type_url=type_url,
        nonce=nonce,
        error=_error(request),
        subscribe=(yield from _bounded(subscribe)),
        unsubscribe=(yield from _bounded(request.resource_names_unsubscribe)),
        initial_versions=(yield from _versions(brought)) if brought else {},
    )


def _sotw_event(request: Any, type_url: str) -> Work[SotwRequest]:
    return SotwRequest(
        type_url=type_url,
        names=(yield from _bounded(request.resource_names)),
        nonce=request.response_nonce,
        error=_error(request),
    )


def delta(only: str = "") -> Variant:
    return Variant(discovery_pb2.DeltaDiscoveryRequest, DeltaStream, _delta_event, only)


def sotw(only: str = "") -> Variant:
    return Variant(discovery_pb2.DiscoveryRequest, SotwStream, _sotw_event, only)
