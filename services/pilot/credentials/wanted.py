"""Credentials that Gateways name and nobody has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.pilot.credentials.credential import Credential, CredentialName
from windward.config.gateway import Gateway
from windward.config.object import ConfigObject


def absent(
    gateways: Iterable[ConfigObject[Gateway]], held: Mapping[CredentialName, Credential]
) -> dict[str, str]:
    """Name -> one of the Gateways (namespace/name) that name it. In which namespace it is wanted, the proxies say."""
    known = {name for _, name in held}
    found: dict[str, str] = {}
    for item in gateways:
        for server in item.spec.servers:
            if server.tls is None:
                continue
            for name in filter(
                None,
                (
                    server.tls.credential_name,
                    *server.tls.credential_names,
                    server.tls.ca_cert_credential_name,
                ),
            ):
                if name not in known:
                    found.setdefault(name, f"{item.key.namespace}/{item.key.name}")
    return found
