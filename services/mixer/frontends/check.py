"""ext_authz v3: Envoy's question about one request -> attributes -> rules -> answer.

Two filters ask, one for the rules that fail open and one for those that fail closed; which one is in the call's metadata.
An error here is a gRPC error, so that the filter's own failure mode decides.
Source: envoy/service/auth/v3/external_auth.proto, attribute_context.proto.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Any

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2, external_auth_pb2_grpc
from google.rpc import status_pb2

from services.mixer import metrics
from services.mixer.adapters.checks import Verdict
from services.mixer.attributes.workloads import Workloads
from services.mixer.runtime.rules import RuleSet
from windward.expression.compiled import AbsentError, EvaluationError
from windward.registration import RegisteredWorkload
from windward.rpc.errors import RefusedError
from windward.telemetry.tracing import span

FAIL_POLICY_HEADER = "x-windward-fail-policy"
HTTP_OF_CODE = {3: 400, 5: 404, 7: 403, 8: 429, 9: 400, 11: 400, 12: 501, 14: 503, 16: 401}
SPIFFE = "spiffe://"


class CheckService(external_auth_pb2_grpc.AuthorizationServicer):
    def __init__(self, rules: Callable[[], RuleSet], workloads: Workloads) -> None:
        self._rules = rules
        self._workloads = workloads

    async def Check(  # noqa: N802  the wire's name
        self, request: external_auth_pb2.CheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> external_auth_pb2.CheckResponse:
        opens = any(
            key == FAIL_POLICY_HEADER and value == "open"
            for key, value in context.invocation_metadata() or ()
        )
        with span("mixer.check"):
            bag = attributes(request.attributes, self._workloads)
            try:
                verdict = self._rules().check(bag, opens=opens)
            except (AbsentError, EvaluationError) as error:
                metrics.CHECK_ERRORS.inc()
                raise RefusedError(
                    grpc.StatusCode.INTERNAL, f"an instance cannot be built: {error}"
                ) from error
        metrics.CHECKS.labels("denied" if verdict.code else "ok").inc()
        return response(verdict)


def response(verdict: Verdict) -> external_auth_pb2.CheckResponse:
    if not verdict.code:
        return external_auth_pb2.CheckResponse(status=status_pb2.Status(code=0))
    denied = external_auth_pb2.DeniedHttpResponse(body=verdict.message)
    denied.status.code = HTTP_OF_CODE.get(verdict.code, 403)  # type: ignore[assignment]
    denied.headers.append(
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key="content-type", value="text/plain")
        )
    )
    return external_auth_pb2.CheckResponse(
        status=status_pb2.Status(code=verdict.code, message=verdict.message), denied_response=denied
    )


def attributes(
    given: attribute_context_pb2.AttributeContext, workloads: Workloads
) -> dict[str, Any]:
    """Mixer's attributes of one request. Peers are joined with their registration by address."""
    http = given.request.http
    bag: dict[str, Any] = {
        "context.reporter.kind": "inbound",
        "context.protocol": "grpc"
        if http.headers.get("content-type", "").startswith("application/grpc")
        else "http",
        "request.id": http.id,
        "request.method": http.method,
        "request.path": http.path,
        "request.url_path": http.path.partition("?")[0],
        "request.host": http.host,
        "request.scheme": http.scheme,
        "request.headers": dict(http.headers),
        "request.useragent": http.headers.get("user-agent", ""),
        "request.size": max(http.size, 0),
        "request.time": given.request.time.ToDatetime(UTC),
        "connection.mtls": bool(given.source.principal),
    }
    _peer(bag, "source", given.source, workloads)
    _peer(bag, "destination", given.destination, workloads)
    bag.update(
        {
            key: value
            for key, value in given.context_extensions.items()
            if key.startswith("destination.")
        }
    )
    return bag


def _peer(
    bag: dict[str, Any],
    side: str,
    peer: attribute_context_pb2.AttributeContext.Peer,
    workloads: Workloads,
) -> None:
    import ipaddress

    address = peer.address.socket_address
    if address.address:
        bag[f"{side}.ip"] = ipaddress.ip_address(address.address)
        bag[f"{side}.port"] = address.port_value
    if peer.principal:
        principal = peer.principal.removeprefix(SPIFFE)
        bag[f"{side}.principal"] = bag[f"{side}.user"] = principal
        parts = principal.split("/")
        if len(parts) == 5:
            bag[f"{side}.namespace"], bag[f"{side}.serviceAccount"] = parts[2], parts[4]
    _workload(bag, side, workloads.at(address.address))


def _workload(bag: dict[str, Any], side: str, workload: RegisteredWorkload | None) -> None:
    if workload is None:
        return
    bag[f"{side}.name"] = bag[f"{side}.workload.name"] = workload.name
    bag[f"{side}.workload.namespace"] = workload.namespace
    bag.setdefault(f"{side}.namespace", workload.namespace)
    bag.setdefault(f"{side}.serviceAccount", workload.service_account)
    bag[f"{side}.labels"] = workload.labels
    bag[f"{side}.uid"] = f"windward://{workload.namespace}/{workload.name}"
