"""Certificates: the profile that is written, and what is refused when one is read."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from windward.identity.certificate import (
    CertificateError,
    Issuer,
    Validity,
    build_leaf,
    build_root,
    check_chain,
    check_svid,
    identity_of,
    load_chain,
    pem,
)
from windward.identity.keys import key_pem, new_key
from windward.identity.spiffe_id import SpiffeId, workload_id

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = Validity(NOW - timedelta(minutes=2), NOW + timedelta(hours=1))
DOMAIN = SpiffeId.parse("spiffe://cluster.local")
ALICE = workload_id("cluster.local", "shop", "alice")
BOB = workload_id("cluster.local", "shop", "bob")
_serials = itertools.count(1)


def new_root(validity: Validity = HOUR) -> Issuer:
    key = new_key()
    return Issuer(build_root(key, DOMAIN, validity, next(_serials)), key)


ROOT = new_root()


def leaf_for(key: ec.EllipticCurvePrivateKey, *dns: str, root: Issuer = ROOT) -> x509.Certificate:
    return build_leaf(root, key.public_key(), ALICE, HOUR, next(_serials), dns)


def usages(certificate: x509.Certificate) -> set[str]:
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign",
    )  # fmt: skip
    return {name for name in names if getattr(usage.value, name)}


def test_a_leafs_profile():
    key = new_key()
    leaf = leaf_for(key, "pilot.windward.internal")
    assert list(leaf.subject) == []
    assert leaf.issuer == ROOT.certificate.subject
    assert leaf.version is x509.Version.v3
    assert usages(leaf) == {"digital_signature", "key_encipherment"}
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert not constraints.value.ca
    purposes = set(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert purposes == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical, "the subject is empty, so the names must be (RFC 5280, 4.2.1.6)"
    assert [(type(name), name.value) for name in names.value] == [
        (x509.UniformResourceIdentifier, str(ALICE)),
        (x509.DNSName, "pilot.windward.internal"),
    ]
    assert {found.oid for found in leaf.extensions} >= {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
    }
    assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (
        HOUR.not_before,
        HOUR.not_after,
    )


def test_a_roots_profile():
    root = ROOT.certificate
    assert usages(root) == {"key_cert_sign", "crl_sign"}
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert identity_of(root) == DOMAIN
    assert identity_of(root).path == ""
    assert root.subject == root.issuer


def test_another_verifier_accepts_our_chain_for_both_ends():
    """RFC 5280's path validation as cryptography has it, which shares no code with ours."""
    leaf = leaf_for(new_key(), "pilot.windward.internal")
    policy = PolicyBuilder().store(Store([ROOT.certificate])).time(NOW)
    server = policy.build_server_verifier(x509.DNSName("pilot.windward.internal"))
    assert server.verify(leaf, []) == [leaf, ROOT.certificate]
    client = policy.build_client_verifier().verify(leaf, [])
    assert next(name.value for name in client.subjects or []) == str(ALICE)
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("mixer.windward.internal")).verify(leaf, [])


def test_a_chain_that_holds():
    key = new_key()
    leaf = leaf_for(key)
    assert check_svid(pem(leaf), key_pem(key), pem(ROOT.certificate), ALICE, NOW) == leaf


def test_a_chain_may_carry_its_root_and_several_roots_may_be_trusted():
    key = new_key()
    leaf = leaf_for(key)
    root = pem(ROOT.certificate)
    bundle = pem(new_root().certificate) + root
    assert check_svid(pem(leaf) + root, key_pem(key), bundle, ALICE, NOW) == leaf


@pytest.mark.parametrize(
    ("after", "holds"),
    [
        (timedelta(minutes=-2), True),
        (timedelta(minutes=-2, seconds=-1), False),
        (timedelta(hours=1), True),
        (timedelta(hours=1, seconds=1), False),
    ],
)
def test_the_ends_of_its_life(after: timedelta, holds: bool):
    key = new_key()
    svid = (pem(leaf_for(key)), key_pem(key), pem(ROOT.certificate), ALICE)
    if holds:
        check_svid(*svid, NOW + after)
        return
    with pytest.raises(CertificateError, match="valid from"):
        check_svid(*svid, NOW + after)


def test_what_does_not_belong_together_is_said():
    key = new_key()
    leaf, root = pem(leaf_for(key)), pem(ROOT.certificate)
    other = pem(new_root().certificate)
    with pytest.raises(CertificateError, match=f"not {re.escape(str(BOB))}"):
        check_svid(leaf, key_pem(key), root, BOB, NOW)
    with pytest.raises(CertificateError, match="key does not belong"):
        check_svid(leaf, key_pem(new_key()), root, ALICE, NOW)
    with pytest.raises(CertificateError, match="trusted root"):
        check_svid(leaf, key_pem(key), other, ALICE, NOW)
    with pytest.raises(CertificateError, match="chain is broken"):
        check_svid(leaf + other, key_pem(key), root, ALICE, NOW)


def test_equal_names_are_not_equal_keys():
    """Two authorities of one name: only the one that signed counts."""
    key, twin = new_key(), new_root()
    assert twin.certificate.subject == ROOT.certificate.subject
    with pytest.raises(CertificateError):
        check_chain([leaf_for(key)], [twin.certificate], NOW)


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_text_without_certificates(text: bytes):
    key = new_key()
    good = (pem(leaf_for(key)), key_pem(key), pem(ROOT.certificate))
    for broken in ((text, *good[1:]), (good[0], text, good[2]), (*good[:2], text)):
        with pytest.raises(CertificateError):
            check_svid(*broken, ALICE, NOW)
    with pytest.raises(CertificateError, match="no readable certificate"):
        load_chain(text)


def with_names(*names: x509.GeneralName) -> x509.Certificate:
    builder = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([]))
    builder = builder.public_key(ROOT.key.public_key()).serial_number(next(_serials))
    builder = builder.not_valid_before(HOUR.not_before).not_valid_after(HOUR.not_after)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(ROOT.key, hashes.SHA256())


@pytest.mark.parametrize(
    "names",
    [
        (),
        (x509.DNSName("alice.shop"),),
        (x509.RFC822Name(str(ALICE)),),
        (x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x16\x02ab"),),
        (x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),),
        (x509.UniformResourceIdentifier(str(ALICE)), x509.UniformResourceIdentifier(str(BOB))),
        (x509.UniformResourceIdentifier(str(ALICE) + "," + str(BOB)),),
        (x509.UniformResourceIdentifier(str(ALICE) + "\0.evil"),),
        (x509.UniformResourceIdentifier("https://cluster.local/ns/shop/sa/alice"),),
    ],
    ids=["none", "dns", "mail", "other", "registered", "two", "comma", "nul", "https"],
)
def test_names_that_are_no_identity(names: tuple[x509.GeneralName, ...]):
    with pytest.raises(CertificateError):
        identity_of(with_names(*names))


def test_a_dns_name_beside_the_identity_is_no_harm():
    uri = x509.UniformResourceIdentifier(str(ALICE))
    assert identity_of(with_names(uri, x509.DNSName("pilot.windward.internal"))) == ALICE
