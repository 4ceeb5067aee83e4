"""istio.v1.auth.IstioCertificateService: a request and a proved caller in, a chain out.

Statuses as Istio's CA has them: UNAUTHENTICATED for the caller, INVALID_ARGUMENT for the request or its TTL, INTERNAL
when nothing can be signed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc

from services.citadel import metrics
from services.citadel.authn.caller import authenticate
from services.citadel.authority.root import Root
from services.citadel.authority.signing import ExpiredAuthorityError, Policy, TtlError, issue
from windward.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from windward.identity.csr import CsrError
from windward.rpc.errors import RefusedError, invalid
from windward.store.protocol import Store
from windward.telemetry.logging import get_logger
from windward.telemetry.tracing import span

log = get_logger()


class CertificateService(ca_pb2_grpc.IstioCertificateServiceServicer):
    def __init__(
        self,
        store: Store,
        root: Root,
        policy: Policy,
        trust_domain: str,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._root = root
        self._policy = policy
        self._trust_domain = trust_domain
        self._now = now

    async def CreateCertificate(  # noqa: N802  the wire's name
        self, request: ca_pb2.IstioCertificateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ca_pb2.IstioCertificateResponse:
        metrics.CSRS.inc()
        with span("citadel.create_certificate"):
            try:
                identity = await authenticate(context, self._store, self._trust_domain)
            except RefusedError:
                metrics.AUTHENTICATION_FAILURES.inc()
                raise
            try:
                issued = issue(
                    self._root,
                    self._policy,
                    identity,
                    request.csr.encode(),
                    request.validity_duration,
                    self._now(),
                )
            except CsrError as error:
                metrics.CSR_PARSING_ERRORS.inc()
                raise invalid(f"CSR signing error ({error})") from error
            except TtlError as error:
                metrics.SIGN_ERRORS.labels("ttl_error").inc()
                raise invalid(f"CSR signing error ({error})") from error
            except ExpiredAuthorityError as error:
                metrics.SIGN_ERRORS.labels("ca_not_ready").inc()
                raise RefusedError(
                    grpc.StatusCode.INTERNAL, f"CSR signing error ({error})"
                ) from error
        metrics.ISSUED.inc()
        log.info(
            "citadel.issued",
            identity=str(identity),
            serial=f"{issued.certificate.serial_number:x}",
            not_after=issued.certificate.not_valid_after_utc.isoformat(),
            peer=context.peer(),
        )
        return ca_pb2.IstioCertificateResponse(cert_chain=issued.chain)
