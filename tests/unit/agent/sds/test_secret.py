"""Secrets are what Envoy's own messages say, and equal ones have equal versions."""

from __future__ import annotations

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.agent.sds.secret import own_secrets, pair_secret, roots_secret
from windward.rpc.credentials import TlsMaterial
from windward.xds.resource import SECRET


@given(st.text(max_size=20), st.binary(max_size=300), st.binary(max_size=300))
def test_a_pair_is_envoys_secret(name, chain, key):
    secret = pair_secret(name, chain, key)
    wrapped = any_pb2.Any.FromString(secret.any)
    message = secret_pb2.Secret.FromString(wrapped.value)
    assert wrapped.type_url == SECRET
    assert message.name == name
    assert message.tls_certificate.certificate_chain.inline_bytes == chain
    assert message.tls_certificate.private_key.inline_bytes == key
    entry = discovery_pb2.Resource.FromString(secret.entry)
    assert (entry.name, entry.version, entry.resource) == (name, secret.version, wrapped)
    assert str(key) not in repr(secret)


@given(st.text(max_size=20), st.binary(max_size=300))
def test_roots_are_envoys_secret(name, roots):
    wrapped = any_pb2.Any.FromString(roots_secret(name, roots).any)
    message = secret_pb2.Secret.FromString(wrapped.value)
    assert message.name == name
    assert message.validation_context.trusted_ca.inline_bytes == roots
    assert not message.HasField("tls_certificate")


def test_versions_are_of_the_content():
    first = own_secrets(TlsMaterial(b"chain", b"key", b"roots"))
    again = own_secrets(TlsMaterial(b"chain", b"key", b"roots"))
    renewed = own_secrets(TlsMaterial(b"chain 2", b"key 2", b"roots"))
    assert first == again
    assert renewed["default"].version != first["default"].version
    assert renewed["ROOTCA"] == first["ROOTCA"]
