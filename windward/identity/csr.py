"""Certificate signing requests: made for one identity; read without believing them.

Source: RFC 2986; what Istio's CA ignores or refuses: istio security/pkg/pki/ca and ra, facts C10 and C11.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID

from windward.identity.keys import weakness
from windward.identity.spiffe_id import SpiffeId

LIMIT_BYTES = 32 * 1024
_BEGIN = b"-----BEGIN CERTIFICATE REQUEST-----"
_END = b"-----END CERTIFICATE REQUEST-----"


class CsrError(ValueError):
    """The request cannot be signed; says why."""


def new_csr(key: ec.EllipticCurvePrivateKey, identity: SpiffeId) -> bytes:
    """PEM request with an empty subject and one URI SAN."""
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(names, critical=True).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def load_csr(pem: bytes) -> x509.CertificateSigningRequest:
    """Parse and check what every request must satisfy: one PEM block, own signature, a strong key. Raises CsrError."""
    if len(pem) > LIMIT_BYTES:
        raise CsrError(f"the request is larger than {LIMIT_BYTES} bytes")
    body = pem.strip()
    if not body.startswith(_BEGIN) or not body.endswith(_END) or body.count(b"-----BEGIN ") != 1:
        raise CsrError("the request is not exactly one PEM block CERTIFICATE REQUEST")
    try:
        request = x509.load_pem_x509_csr(body)
        valid = request.is_signature_valid
        reason = weakness(request.public_key())
    except (ValueError, InvalidSignature, UnsupportedAlgorithm, TypeError) as error:
        raise CsrError("the request cannot be parsed") from error
    if not valid:
        raise CsrError("the request's own signature does not verify")
    if reason:
        raise CsrError(reason)
    return request


def check_strictly(request: x509.CertificateSigningRequest, identity: SpiffeId) -> None:
    """The strict mode: what is asked for must be exactly what the caller is. Raises CsrError.

    A SAN extension with one URI, the caller's own; no other kind of name, no other extension; a subject that is empty
    or holds one empty organisation.
    """
    try:
        extensions = list(request.extensions)
        subject = list(request.subject)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise CsrError("the request's extensions cannot be parsed") from error
    organisation = NameOID.ORGANIZATION_NAME
    if (
        any(part.oid != organisation or part.value not in {"", b""} for part in subject)
        or len(subject) > 1
    ):
        raise CsrError("the subject must be empty")
    if [extension.oid for extension in extensions] != [ExtensionOID.SUBJECT_ALTERNATIVE_NAME]:
        raise CsrError("the request must have a subject alternative name and no other extension")
    names = list(extensions[0].value)
    if [type(name) for name in names] != [x509.UniformResourceIdentifier]:
        raise CsrError("the request must name exactly one URI and nothing else")
    if names[0].value != str(identity):
        raise CsrError("the request names another identity than the caller's")
