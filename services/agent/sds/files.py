"""Secrets from mounted files: ``file-cert:<certificate>~<key>``, ``file-root:<roots>``, ``file-root:system``.

A pair is served only if key and certificate belong together; certificates of a bundle that cannot be read are left out.
Names are Istio's: security/pkg/nodeagent/cache/secretcache.go, pkg/security/security.go (SdsCertificateConfig).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from services.agent.sds.secret import DEFAULT, ROOTCA, Secret, pair_secret, roots_secret
from windward.identity.certificate import CertificateError, load_chain
from windward.telemetry.logging import get_logger

log = get_logger()
CERT_PREFIX = "file-cert:"
ROOT_PREFIX = "file-root:"
SYSTEM = "system"
MOST_BYTES = 4 * 1024 * 1024
SYSTEM_ROOTS = (
    Path("/etc/ssl/certs/ca-certificates.crt"),  # Debian, Ubuntu, Alpine
    Path("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),  # Fedora, RHEL
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),  # SUSE
    Path("/etc/ssl/cert.pem"),
)
MOUNTS = (Path("/var/run/secrets/workload-spiffe-credentials"), Path("/etc/certs"))
"""Folders whose certificate goes before Citadel's; the first that has all three files."""
CHAIN_FILE, KEY_FILE, ROOTS_FILE = "cert-chain.pem", "key.pem", "root-cert.pem"
BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class FileSecretError(Exception):
    """Files that no secret can be made of; says which and why."""


@dataclass(frozen=True, slots=True)
class PairFiles:
    chain: Path
    key: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.chain, self.key)


@dataclass(frozen=True, slots=True)
class RootsFile:
    roots: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.roots,)


Files = PairFiles | RootsFile


def parse_name(name: str, system_roots: Sequence[Path] = SYSTEM_ROOTS) -> Files | None:
    """The files that a secret's name stands for; None for a name that is of no file."""
    if name.startswith(CERT_PREFIX):
        chain, _, key = name.removeprefix(CERT_PREFIX).partition("~")
        return PairFiles(Path(chain), Path(key)) if chain and key and "~" not in key else None
    if name.startswith(ROOT_PREFIX):
        path = name.removeprefix(ROOT_PREFIX)
        if path == SYSTEM:
            return RootsFile(next((p for p in system_roots if p.is_file()), system_roots[0]))
        return RootsFile(Path(path)) if path else None
    return None


def mounted(folders: Sequence[Path] = MOUNTS) -> Mapping[str, Files]:
    """``default`` and ``ROOTCA`` from a well-known mount; empty without one."""
    for folder in folders:
        chain, key, roots = (folder / name for name in (CHAIN_FILE, KEY_FILE, ROOTS_FILE))
        if chain.exists() and key.exists() and roots.exists():
            return {DEFAULT: PairFiles(chain, key), ROOTCA: RootsFile(roots)}
    return {}


def read_secret(name: str, files: Files) -> Secret:
    """The secret as its files are now. Raises FileSecretError."""
    match files:
        case PairFiles(chain, key):
            return _pair(name, chain, key)
        case RootsFile(roots):
            return _roots(name, roots)


def _pair(name: str, chain: Path, key: Path) -> Secret:
    chain_pem, key_pem = _read(chain), _read(key)
    try:
        certificate = load_chain(chain_pem)[0]
    except CertificateError as error:
        raise FileSecretError(f"{chain}: {error}") from error
    try:
        public = load_pem_private_key(key_pem, None).public_key()
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise FileSecretError(f"{key}: not an unencrypted private key in PEM") from error
    if public != certificate.public_key():
        raise FileSecretError(f"{key}: the key does not belong to the certificate in {chain}")
    return pair_secret(name, chain_pem, key_pem)


def _roots(name: str, path: Path) -> Secret:
    good: list[bytes] = []
    blocks = BLOCK.findall(_read(path))
    for number, block in enumerate(blocks, 1):
        try:
            load_pem_x509_certificate(block)
        except ValueError as error:
            log.warning(
                "secret.root_skipped", file=str(path), certificate=number, reason=str(error)
            )
        else:
            good.append(block + b"\n")
    if not good:
        raise FileSecretError(f"{path}: no readable certificate in it ({len(blocks)} of any kind)")
    return roots_secret(name, b"".join(good))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise FileSecretError(f"{path}: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise FileSecretError(f"{path}: longer than {MOST_BYTES} bytes")
    return content
