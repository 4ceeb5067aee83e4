"""One SDS stream's memory, incremental or state of the world: what it asked for, what it was sent. Pure.

    request(...) and the secrets there are now -> take(...) -> responses that may go

A secret is sent when it is asked for and whenever its version differs from the one that was sent last; a refused one is
not sent again until it changes. One that has gone stays where it is. Source: xDS protocol, "Incremental xDS" and
"State of the world"; Envoy service/secret/v3/sds.proto.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.agent.sds.secret import Secret
from services.agent.xds_proxy.wire import (
    Request,
    SotwRequest,
    bytes_field,
    write_response,
)
from windward.xds.envelope import text_field
from windward.xds.resource import SECRET

Secrets = Mapping[str, Secret]


class DeltaSecrets:
    def __init__(self) -> None:
        self.wanted: set[str] = set()
        self._sent: dict[str, str] = {}
        """Name -> version; empty for a name that was said not to exist."""
        self._nonce = 0

    def request(self, request: Request) -> None:
        self.wanted -= set(request.unsubscribe)
        for name in request.unsubscribe:
            self._sent.pop(name, None)
        self.wanted.update(request.subscribe)
        for name in request.subscribe:
            # Asked again, it must be answered again.
            self._sent.pop(name, None)
            if name in request.initial_versions:
                self._sent[name] = request.initial_versions[name]

    def take(self, secrets: Secrets) -> list[bytes]:
        """At most one response."""
        due: list[Secret] = []
        missing: list[str] = []
        for name in sorted(self.wanted):
            secret, sent = secrets.get(name), self._sent.get(name)
            if secret is not None and sent != secret.version:
                due.append(secret)
                self._sent[name] = secret.version
            elif secret is None and sent is None:
                missing.append(name)
                self._sent[name] = ""
        if not due and not missing:
            return []
        self._nonce += 1
        entries = [secret.entry for secret in due]
        return [write_response(SECRET, entries, missing, "", str(self._nonce))]


class SotwSecrets:
    def __init__(self) -> None:
        self.wanted: set[str] = set()
        self._sent: dict[str, str] | None = None
        """Name -> version of the last response; None when one is owed whatever is in it."""
        self._nonce = 0

    def request(self, request: SotwRequest) -> None:
        if request.nonce and request.nonce != str(self._nonce):
            return  # an answer to a response that a newer one has overtaken
        wanted = set(request.names)
        if not request.nonce or wanted - self.wanted:
            self._sent = None
        elif self._sent is not None:
            self._sent = {name: v for name, v in self._sent.items() if name in wanted}
        self.wanted = wanted

    def take(self, secrets: Secrets) -> list[bytes]:
        """All that is wanted and there, when any of it is new to the client; at most one response."""
        chosen = [secrets[name] for name in sorted(self.wanted & secrets.keys())]
        versions = {secret.name: secret.version for secret in chosen}
        if not chosen or versions == self._sent:
            return []
        self._sent = versions
        self._nonce += 1
        return [whole_response(chosen, str(self._nonce))]


def whole_response(secrets: list[Secret], nonce: str) -> bytes:
    """DiscoveryResponse: version_info = 1, resources = 2, type_url = 4, nonce = 5."""
    version = "-".join(secret.version for secret in secrets)
    parts = [text_field(1, version)]
    parts += [bytes_field(2, secret.any) for secret in secrets]
    return b"".join((*parts, text_field(4, SECRET), text_field(5, nonce)))
