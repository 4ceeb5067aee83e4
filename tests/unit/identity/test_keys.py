"""Keys: ours are P-256; of others, only strong ones."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from windward.identity.keys import key_pem, load_key, new_key, weakness


def test_a_new_key_is_p256_and_survives_its_pem():
    key = new_key()
    assert isinstance(key.curve, ec.SECP256R1)
    assert load_key(key_pem(key)).private_numbers() == key.private_numbers()


def test_no_two_keys_are_the_same():
    assert len({new_key().private_numbers().private_value for _ in range(20)}) == 20


def encrypted() -> bytes:
    return new_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def of_rsa() -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    "pem",
    [b"", b"no key", b"\xff\x00", encrypted(), of_rsa(), key_pem(new_key())[:60]],
    ids=["empty", "text", "bytes", "encrypted", "rsa", "cut"],
)
def test_what_is_no_key_of_ours_is_refused(pem: bytes):
    with pytest.raises(ValueError, match="not an"):
        load_key(pem)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_strong_curves(curve: ec.EllipticCurve):
    assert not weakness(ec.generate_private_key(curve).public_key())


@pytest.mark.parametrize(
    "curve", [ec.SECP192R1(), ec.SECP224R1(), ec.SECP256K1(), ec.SECP521R1(), ec.BrainpoolP256R1()]
)
def test_other_curves_are_named_in_the_refusal(curve: ec.EllipticCurve):
    assert curve.name in weakness(ec.generate_private_key(curve).public_key())


@pytest.mark.parametrize(("bits", "strong"), [(1024, False), (2047, False), (2048, True)])
def test_rsa_from_2048_bits(bits: int, strong: bool):
    reason = weakness(rsa.generate_private_key(65537, bits).public_key())
    assert (not reason) == strong
    assert strong or str(bits) in reason


def test_an_rsa_key_that_costs_too_much_to_verify_is_refused():
    """A public key alone: making a pair of that size would take minutes."""
    public = rsa.RSAPublicNumbers(65537, (1 << 8199) | 1).public_key()
    assert "8200" in weakness(public)


def test_other_algorithms_are_refused():
    assert weakness(ed25519.Ed25519PrivateKey.generate().public_key())
    assert weakness(dsa.generate_private_key(1024).public_key())
