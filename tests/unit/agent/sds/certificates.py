"""Certificates for tests of secrets: self-signed, of any kind of key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from windward.rpc.credentials import TlsMaterial


def pair(name: str = "a", *, key: Any = None, lasts_s: int = 3600) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM; the certificate ends ``lasts_s`` from now."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(seconds=lasts_s))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private


def material(name: str = "a", roots: bytes | None = None, *, lasts_s: int = 3600) -> TlsMaterial:
    chain, key = pair(name, lasts_s=lasts_s)
    return TlsMaterial(chain, key, roots or chain)


def put(folder: Path, chain: bytes, key: bytes) -> str:
    """Write a pair as files; the secret's name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cert.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key)
    return f"file-cert:{folder}/cert.pem~{folder}/key.pem"
