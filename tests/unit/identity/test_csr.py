"""Requests: what is refused at once, and what the strict mode asks for."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from windward.identity.csr import LIMIT_BYTES, CsrError, check_strictly, load_csr, new_csr
from windward.identity.keys import new_key
from windward.identity.spiffe_id import workload_id

ALICE = workload_id("cluster.local", "shop", "alice")
BOB = workload_id("cluster.local", "shop", "bob")
KEY = new_key()
OWN = x509.UniformResourceIdentifier(str(ALICE))
MAIL = x509.RFC822Name(str(ALICE))


def request(
    names: Sequence[x509.GeneralName] = (OWN,),
    subject: Sequence[x509.NameAttribute[str]] = (),
    more: Sequence[x509.ExtensionType] = (),
) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for extension in more:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def in_pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def der_of(pem: bytes) -> bytes:
    return load_csr(pem).public_bytes(serialization.Encoding.DER)


def test_our_own_request_is_strict_for_its_identity_and_no_other():
    made = load_csr(new_csr(KEY, ALICE))
    assert made.public_key() == KEY.public_key()
    check_strictly(made, ALICE)
    with pytest.raises(CsrError, match="another identity"):
        check_strictly(made, BOB)


def subject(oid: ObjectIdentifier, value: str = "x") -> list[x509.NameAttribute[str]]:
    return [x509.NameAttribute(oid, value)]


@pytest.mark.parametrize(
    "pem",
    [
        request(names=()),
        request(names=(OWN, x509.UniformResourceIdentifier(str(BOB)))),
        request(names=(OWN, OWN)),
        request(names=(x509.UniformResourceIdentifier(str(ALICE) + ",spiffe://evil"),)),
        request(names=(x509.UniformResourceIdentifier(str(ALICE).upper()),)),
        request(names=(OWN, x509.DNSName("pilot.windward.internal"))),
        request(names=(x509.DNSName(str(ALICE)),)),
        request(names=(MAIL,)),
        request(names=(OWN, MAIL)),
        request(names=(OWN, x509.IPAddress(ipaddress.ip_address("127.0.0.1")))),
        request(names=(x509.RegisteredID(ObjectIdentifier("1.2.3")),)),
        request(names=(x509.OtherName(ObjectIdentifier("1.2.3"), b"\x0c\x01a"),)),
        request(names=(x509.DirectoryName(x509.Name(subject(NameOID.COMMON_NAME))),)),
        request(subject=subject(NameOID.COMMON_NAME)),
        request(subject=subject(NameOID.ORGANIZATION_NAME)),
        request(subject=subject(NameOID.COUNTRY_NAME, "DE")),
        request(more=[x509.BasicConstraints(ca=True, path_length=None)]),
        request(more=[x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")]),
    ],
    ids=[
        "no-names", "two-uris", "the-uri-twice", "two-in-one", "upper-case", "and-a-dns-name", "uri-as-dns",
        "uri-as-mail", "and-a-mail", "and-an-address", "registered-id", "other-name", "directory-name",
        "common-name", "organisation", "country", "ca", "unknown-extension",
    ],
)  # fmt: skip
def test_what_the_strict_mode_refuses(pem: bytes):
    made = load_csr(pem)
    with pytest.raises(CsrError):
        check_strictly(made, ALICE)


def test_an_extension_twice_is_refused():
    """No builder writes it: the extension's own bytes, said twice."""
    one = bytes.fromhex("0603551d11") + b"\x04\x04\x30\x02\x82\x00"
    extension = b"\x30" + bytes([len(one)]) + one
    both = extension * 2
    listed = b"\x30" + bytes([len(both)]) + both
    attribute_set = b"\x31" + bytes([len(listed)]) + listed
    attribute = bytes.fromhex("06092a864886f70d01090e") + attribute_set
    attribute = b"\x30" + bytes([len(attribute)]) + attribute
    key = KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    rest = b"\xa0" + bytes([len(attribute)]) + attribute
    body = b"\x02\x01\x00\x30\x00" + key + rest
    info = b"\x30\x81" + bytes([len(body)]) + body
    signature = b"\x00" + KEY.sign(info, ec.ECDSA(hashes.SHA256()))
    tail = bytes.fromhex("300a06082a8648ce3d040302") + b"\x03" + bytes([len(signature)]) + signature
    whole = info + tail
    made = load_csr(in_pem(b"\x30\x81" + bytes([len(whole)]) + whole))
    with pytest.raises(CsrError, match="cannot be parsed"):
        check_strictly(made, ALICE)


def test_a_signature_of_another_key_is_refused():
    der = bytearray(der_of(new_csr(KEY, ALICE)))
    at = bytes(der).index(str(ALICE).encode())
    der[at : at + len(str(ALICE))] = str(ALICE).replace("alice", "malic").encode()
    with pytest.raises(CsrError, match="signature"):
        load_csr(in_pem(bytes(der)))


def test_data_after_the_request_is_refused_inside_and_outside_the_block():
    good = new_csr(KEY, ALICE)
    for pem in (in_pem(der_of(good) + b"\0"), good + b"more", good + good, b"more\n" + good):
        with pytest.raises(CsrError):
            load_csr(pem)


def test_white_space_around_the_block_is_no_harm():
    assert load_csr(b"\n \r\n" + new_csr(KEY, ALICE) + b"\n\n").is_signature_valid


def test_another_kind_of_block_is_refused():
    good = new_csr(KEY, ALICE)
    for name in (b"NEW CERTIFICATE REQUEST", b"CERTIFICATE", b"PRIVATE KEY"):
        with pytest.raises(CsrError, match="PEM"):
            load_csr(good.replace(b"CERTIFICATE REQUEST", name))


def test_the_size_is_bounded_before_anything_is_parsed():
    with pytest.raises(CsrError, match="larger"):
        load_csr(b"x" * (LIMIT_BYTES + 1))


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 1024),
    ],
    ids=["ed25519", "secp256k1", "rsa1024"],
)
def test_keys_that_are_not_certified(key):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    pem = builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CsrError, match=r"allowed|certified"):
        load_csr(pem)


def test_an_rsa_request_is_accepted():
    key = rsa.generate_private_key(65537, 2048)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    assert load_csr(pem).public_key() == key.public_key()


DER = der_of(new_csr(KEY, ALICE))
VERSION_AT = 9
"""The version's byte is left as it is: what a reader makes of another one is the parser's own business."""


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DER) - 1).filter(lambda at: at != VERSION_AT), st.integers(1, 255))
def test_a_changed_byte_is_never_signed_for_the_same_names(at: int, flip: int):
    """Every byte of a request is signed or is the signature: whatever is changed, it is refused, and by CsrError."""
    changed = bytearray(DER)
    changed[at] ^= flip
    with pytest.raises(CsrError):
        check_strictly(load_csr(in_pem(bytes(changed))), ALICE)
