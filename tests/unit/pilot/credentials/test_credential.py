"""What makes a credential, and what is refused before it can spoil Envoy's other secrets."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from services.pilot.credentials.credential import (
    Credential,
    CredentialError,
    credential,
    pair_resource,
    roots_resource,
)
from tests.unit.rpc.pki import Authority
from windward.xds.resource import SECRET

ONE, OTHER = Authority().material("gateway"), Authority().material("gateway")


def key(made: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ((b"", b"", b""), "neither tls.crt"),
        ((ONE.chain_pem, b"", b""), "tls.key is missing"),
        ((b"", ONE.key_pem, ONE.roots_pem), "tls.crt is missing"),
        ((b"nothing", ONE.key_pem, b""), "tls.crt:"),
        ((ONE.chain_pem, b"nothing", b""), "tls.key: not an unencrypted"),
        ((ONE.chain_pem, OTHER.key_pem, b""), "does not belong"),
        ((ONE.chain_pem, ONE.key_pem, b"nothing"), "ca.crt: not certificates"),
        ((ONE.chain_pem, key(rsa.generate_private_key(65537, 1024)), b""), "at least 2048 bits"),
        ((ONE.chain_pem, key(ed25519.Ed25519PrivateKey.generate()), b""), "Envoy takes RSA"),
        ((ONE.chain_pem, key(ec.generate_private_key(ec.SECP256K1())), b""), "Envoy takes RSA"),
    ],
)
def test_what_makes_no_credential_is_refused_with_the_reason_and_without_the_key(files, why):
    with pytest.raises(CredentialError, match=why) as caught:
        credential(*files)
    assert "PRIVATE KEY" not in str(caught.value)


def test_a_pair_may_come_without_roots_and_roots_without_a_pair():
    assert credential(ONE.chain_pem, ONE.key_pem, b"").key_pem == ONE.key_pem
    assert credential(b"", b"", ONE.roots_pem) == Credential(roots_pem=ONE.roots_pem)


def test_secrets_are_named_as_istio_names_them_and_say_nothing_of_themselves_in_logs():
    held = credential(ONE.chain_pem, ONE.key_pem, ONE.roots_pem)
    pair, roots = pair_resource("shop", held, ()), roots_resource("shop", held, ())
    assert (pair.type_url, pair.name) == (SECRET, "kubernetes://shop")
    assert roots.name == "kubernetes://shop-cacert"
    message = secret_pb2.Secret.FromString(pair.body)
    assert message.tls_certificate.private_key.inline_bytes == ONE.key_pem
    assert secret_pb2.Secret.FromString(roots.body).validation_context.trusted_ca.inline_bytes
    for text in (repr(held), str(held), repr(pair), f"{ ({'a': held}) }"):
        assert "PRIVATE" not in text
        assert "CERTIFICATE" not in text
