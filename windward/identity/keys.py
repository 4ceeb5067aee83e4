"""Private keys: ECDSA P-256 throughout, and which keys of others are strong enough."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

STRONG_CURVES = (ec.SECP256R1, ec.SECP384R1)
RSA_BITS = range(2048, 8192 + 1)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Raises ValueError for anything but an unencrypted EC key."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (TypeError, ValueError) as error:
        raise ValueError("not an unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic-curve key")  # noqa: TRY004  the bytes are wrong, not the type
    return key


def weakness(key: PublicKeyTypes) -> str:
    """Why a public key may not be certified; empty when it may."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return (
            "" if isinstance(key.curve, STRONG_CURVES) else f"curve {key.curve.name} is not allowed"
        )
    if isinstance(key, rsa.RSAPublicKey):
        return (
            "" if key.key_size in RSA_BITS else f"an RSA key of {key.key_size} bits is not allowed"
        )
    return "only EC (P-256, P-384) and RSA (2048 bits or more) keys are certified"
