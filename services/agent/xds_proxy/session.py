"""What the agent must remember of Envoy's delta stream to open it again at another Pilot without Envoy noticing. Pure.

    Envoy's requests  -> what it subscribed to, its node
    Pilot's responses -> versions Envoy has accepted, by the nonces it ACKs
    a new upstream    -> one first request a type, with initial_resource_versions: an up-to-date Envoy is sent nothing
    an ACK of a nonce of the old upstream -> swallowed

Resources themselves are opaque: only envelopes are parsed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from envoy.service.discovery.v3 import discovery_pb2

Request = discovery_pb2.DeltaDiscoveryRequest
Response = discovery_pb2.DeltaDiscoveryResponse


@dataclass(slots=True)
class _Type:
    names: set[str] = field(default_factory=set)
    legacy_wildcard: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    """Name -> version that Envoy has."""
    waiting: dict[str, tuple[dict[str, str], tuple[str, ...]]] = field(default_factory=dict)
    """Nonce -> (versions it brings, names it removes), until Envoy answers."""


class DeltaSession:
    def __init__(self) -> None:
        self._node: bytes = b""
        self._types: dict[str, _Type] = {}

    def from_envoy(self, raw: bytes) -> bytes | None:
        """Take in a request; what to pass on, or None for an answer to an upstream that is gone."""
        request = Request.FromString(raw)
        if request.HasField("node"):
            self._node = request.node.SerializeToString()
        known = self._types.get(request.type_url)
        first = known is None
        state = known or self._types.setdefault(request.type_url, _Type())
        if first:
            state.versions.update(request.initial_resource_versions)
            state.legacy_wildcard = not request.resource_names_subscribe
        state.names |= set(request.resource_names_subscribe)
        for name in request.resource_names_unsubscribe:
            state.names.discard(name)
            state.versions.pop(name, None)
        if request.resource_names_subscribe and not first:
            state.legacy_wildcard = state.legacy_wildcard and not state.names
        if not request.response_nonce:
            return raw
        answered = state.waiting.pop(request.response_nonce, None)
        if answered is None:
            changes = request.resource_names_subscribe or request.resource_names_unsubscribe
            if not changes:
                return None
            request.response_nonce = ""
            request.ClearField("error_detail")
            return request.SerializeToString()
        if not request.HasField("error_detail"):
            brought, removed = answered
            state.versions.update(brought)
            for name in removed:
                state.versions.pop(name, None)
        return raw

    def from_pilot(self, raw: bytes) -> None:
        """Take in a response on its way to Envoy."""
        response = Response.FromString(raw)
        state = self._types.setdefault(response.type_url, _Type())
        brought = {resource.name: resource.version for resource in response.resources}
        state.waiting[response.nonce] = (brought, tuple(response.removed_resources))

    def reopen(self) -> list[bytes]:
        """First requests for a new upstream, the node in the first of them."""
        requests: list[bytes] = []
        for type_url, state in self._types.items():
            state.waiting.clear()
            names = sorted(state.names)
            request = Request(type_url=type_url, initial_resource_versions=state.versions)
            request.resource_names_subscribe.extend(
                ["*", *names] if state.legacy_wildcard and names else names
            )
            if not requests:
                request.node.ParseFromString(self._node)
            requests.append(request.SerializeToString())
        return requests
