"""Who the fleet's streams are: the Node message that each sends, and a certificate of its own under the mesh's root.

members + root -> FOLDER/nodes.bin (read by the fleet), FOLDER/<index>.pem (certificate and key, 0600)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from envoy.config.core.v3 import base_pb2

from services.citadel.authority.root import BACKDATED, Root, new_serial
from windward.identity.certificate import Validity, build_leaf, pem
from windward.identity.keys import key_pem, new_key
from windward.identity.spiffe_id import workload_id

LIFETIME = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Member:
    """One simulated sidecar."""

    name: str
    namespace: str
    service_account: str
    address: str
    app: str


def node(member: Member) -> bytes:
    """As the agent's bootstrap says it: services/agent/envoy/bootstrap.py."""
    made = base_pb2.Node(
        id=f"sidecar~{member.address}~{member.name}.{member.namespace}~{member.namespace}.svc.cluster.local",
        cluster=f"{member.app}.{member.namespace}",
        user_agent_name="envoy",
    )
    made.metadata.update(
        {
            "NAME": member.name,
            "NAMESPACE": member.namespace,
            "LABELS": {"app": member.app, "version": "v1"},
            "WORKLOAD_NAME": member.name,
            "SERVICE_ACCOUNT": member.service_account,
            "INSTANCE_IPS": member.address,
            "INTERCEPTION_MODE": "REDIRECT",
        }
    )
    return bytes(made.SerializeToString())


def write_identities(
    folder: Path, members: Sequence[Member], root: Root | None, trust_domain: str
) -> Path:
    """The fleet's list; without a root there are no certificates, for plaintext. Returns the list's path."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    parts = []
    for index, member in enumerate(members):
        path = b""
        if root is not None:
            file = folder / f"{index}.pem"
            write_secret(
                file, certificate(root, trust_domain, member.namespace, member.service_account)
            )
            path = str(file).encode()
        for value in (node(member), path):
            parts.append(struct.pack("=I", len(value)) + value)
    nodes = folder / "nodes.bin"
    nodes.write_bytes(b"".join(parts))
    return nodes


def certificate(
    root: Root, trust_domain: str, namespace: str, account: str, dns_names: Sequence[str] = ()
) -> bytes:
    """Certificate and key in PEM, one after the other."""
    key = new_key()
    now = datetime.now(UTC)
    leaf = build_leaf(
        root.issuer,
        key.public_key(),
        workload_id(trust_domain, namespace, account),
        Validity(now - BACKDATED, now + LIFETIME),
        new_serial(),
        dns_names,
    )
    return pem(leaf) + key_pem(key)


def write_secret(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
