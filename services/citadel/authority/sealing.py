"""Sealing: private keys lie in the store only under a key-encryption key that never does.

AES-256-GCM with a random 96-bit nonce; the record's place in the store is authenticated with it, so that a sealed
value cannot be moved (NIST SP 800-38D).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class SealingError(Exception):
    """The key-encryption key is unusable, or is not the one that sealed a value."""


def load_or_make_key(path: Path) -> bytes:
    """The key of a file, made (0600) when there is none. Raises SealingError for an unsafe or broken file."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _load(path)
    except OSError as error:
        raise SealingError(f"--kek-file {path}: {error.strerror}") from error
    key = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
    return key


def _load(path: Path) -> bytes:
    try:
        mode, key = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise SealingError(f"--kek-file {path}: {error.strerror}") from error
    if mode & 0o077:
        raise SealingError(f"--kek-file {path}: readable by others; chmod 600 it")
    if len(key) != KEY_BYTES:
        raise SealingError(
            f"--kek-file {path}: has {len(key)} bytes, needs {KEY_BYTES} random ones"
        )
    return key


def seal(key: bytes, secret: bytes, place: str) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, place.encode())


def unseal(key: bytes, sealed: bytes, place: str) -> bytes:
    """Raises SealingError when this key did not seal it, for this place."""
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], place.encode())
    except (InvalidTag, ValueError) as error:
        raise SealingError(
            "the key-encryption key is not the one that sealed the root: check --kek-file"
        ) from error
