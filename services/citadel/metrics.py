"""Citadel's metrics; names as Istio's CA has them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from windward.telemetry.metrics import new_registry

REGISTRY = new_registry()

CSRS = Counter("citadel_server_csr_count", "Certificate requests received", registry=REGISTRY)
AUTHENTICATION_FAILURES = Counter(
    "citadel_server_authentication_failure_count",
    "Callers that proved no identity",
    registry=REGISTRY,
)
CSR_PARSING_ERRORS = Counter(
    "citadel_server_csr_parsing_err_count",
    "Requests that could not be parsed or were refused",
    registry=REGISTRY,
)
SIGN_ERRORS = Counter(
    "citadel_server_csr_sign_err_count",
    "Requests that could not be signed",
    ["error"],
    registry=REGISTRY,
)
ISSUED = Counter(
    "citadel_server_success_cert_issuance_count", "Certificates issued", registry=REGISTRY
)
JWT_ISSUED = Counter("citadel_server_jwt_svid_count", "JWT-SVIDs issued", registry=REGISTRY)
ROOT_EXPIRY = Gauge(
    "citadel_server_root_cert_expiry_timestamp",
    "When the root expires, Unix seconds",
    registry=REGISTRY,
)
