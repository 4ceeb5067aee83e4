"""The mesh's mTLS: transport sockets whose certificates come by SDS, and whose peers are checked by SPIFFE id."""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf import wrappers_pb2

from services.pilot.envoy.common import pack, sds

TRANSPORT_SOCKET = "envoy.transport_sockets.tls"
MESH_ALPN = ("istio-peer-exchange", "istio", "istio-http/1.1", "istio-h2")
"""Offered by sidecars only: by it an inbound listener tells the mesh's mTLS from an application's own TLS."""


def upstream(sni: str, identities: Iterable[str], alpn: Iterable[str]) -> base_pb2.TransportSocket:
    """Towards a workload whose identity is one of those given; towards any of the mesh if none is known."""
    context = tls_pb2.UpstreamTlsContext(
        common_tls_context=_common(matchers(identities), alpn), sni=sni
    )
    return base_pb2.TransportSocket(name=TRANSPORT_SOCKET, typed_config=pack(context))


def downstream(trust_domain: str) -> base_pb2.TransportSocket:
    """From workloads of the trust domain, a certificate required."""
    prefix = string_pb2.StringMatcher(prefix=f"spiffe://{trust_domain}/")
    context = tls_pb2.DownstreamTlsContext(
        # The first that the caller offers is agreed on, and only these two tell an HTTP codec which it is to be.
        common_tls_context=_common([prefix], ("h2", "http/1.1", *MESH_ALPN)),
        require_client_certificate=wrappers_pb2.BoolValue(value=True),
    )
    return base_pb2.TransportSocket(name=TRANSPORT_SOCKET, typed_config=pack(context))


def plaintext() -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=pack(raw_buffer_pb2.RawBuffer())
    )


def matchers(identities: Iterable[str]) -> list[string_pb2.StringMatcher]:
    return [string_pb2.StringMatcher(exact=identity) for identity in sorted(identities)]


def _common(peers: list[string_pb2.StringMatcher], alpn: Iterable[str]) -> tls_pb2.CommonTlsContext:
    validation = common_pb2.CertificateValidationContext(
        match_typed_subject_alt_names=[
            common_pb2.SubjectAltNameMatcher(
                san_type=common_pb2.SubjectAltNameMatcher.URI, matcher=peer
            )
            for peer in peers
        ]
    )
    combined = tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        default_validation_context=validation,
        validation_context_sds_secret_config=secret_pb2.SdsSecretConfig(
            name="ROOTCA", sds_config=sds()
        ),
    )
    return tls_pb2.CommonTlsContext(
        tls_certificate_sds_secret_configs=[
            secret_pb2.SdsSecretConfig(name="default", sds_config=sds())
        ],
        combined_validation_context=combined,
        alpn_protocols=list(alpn),
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2,
            tls_maximum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
        ),
    )
