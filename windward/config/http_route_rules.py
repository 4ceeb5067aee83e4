"""The rules of one HTTP route. Source: istio pkg/config/validation/{virtualservice,validation}.go."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from windward.config.common import (
    check_duration,
    check_header_name,
    check_host_or_ip,
    check_labels,
    check_percent,
    check_port,
    check_regex,
    check_string_match,
)
from windward.config.hosts import fqdn_fault, is_dns_label, is_label
from windward.config.http_route import (
    CorsPolicy,
    Destination,
    FaultAbort,
    FaultDelay,
    Headers,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
    HTTPRouteDestination,
    RouteDestination,
)
from windward.config.report import Report

AUTHORITY: Final = frozenset({"host", ":authority"})
METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
RETRY_ON: Final = frozenset(
    {"5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx", "refused-stream", "retriable-status-codes",
     "retriable-headers", "envoy-ratelimited", "reset-before-request", "http3-post-connect-failure",
     "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"}
)  # fmt: skip
GRPC_STATUSES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
LARGEST_BODY: Final = 100_000
LONGEST_BODY: Final = 1_000_000
_COMMANDS: Final = re.compile(r"(?:[^%]|%%|%[A-Z_0-9]+(?:\([^()]*\))?(?::\d+)?%)*")
_SCHEME: Final = re.compile(r"https?")


def check_http_route(route: HTTPRoute, report: Report, *, delegate: bool, gateway: bool) -> None:
    """One route. ``delegate``: of a VirtualService without hosts; ``gateway``: bound to one."""
    if route.name and len(route.name) > 300:
        report.at("name").error("too-large", "must have at most 300 characters")
    _action(route, report, delegate=delegate)
    for index, match in enumerate(route.match):
        check_match(match, report.at("match", index))
    if route.rewrite is not None:
        check_rewrite(route.rewrite, report.at("rewrite"))
        if route.rewrite.authority and sets_host(route.headers):
            report.at("rewrite", "authority").error(
                "conflict", "does not go with headers.request.set of host"
            )
    if route.redirect is not None and route.redirect.prefix_rewrite:
        if any(match.uri is not None and match.uri.prefix is None for match in route.match):
            report.at("redirect", "prefixRewrite").error(
                "conflict", "does not go with an exact or regex uri match"
            )
    if route.timeout:
        check_duration(route.timeout, report.at("timeout"))
    if route.retries is not None:
        check_retries(route.retries, report.at("retries"))
    if route.fault is not None:
        if route.fault.delay is None and route.fault.abort is None:
            report.at("fault").error("required", "must have a delay or an abort")
        if route.fault.delay is not None:
            check_delay(route.fault.delay, report.at("fault", "delay"))
        if route.fault.abort is not None:
            check_abort(route.fault.abort, report.at("fault", "abort"))
    _mirrors(route, report)
    if route.cors_policy is not None:
        check_cors(route.cors_policy, report.at("corsPolicy"))
    if route.headers is not None:
        check_headers(route.headers, report.at("headers"))
    check_weights([item.weight for item in route.route], report.at("route"))
    for index, item in enumerate(route.route):
        check_route_destination(item, report.at("route", index), gateway=gateway)


def sets_host(headers: Headers | None) -> bool:
    """Whether a route sets the request's host by its header operations."""
    operations = headers.request if headers else None
    return operations is not None and any(key.lower() in AUTHORITY for key in operations.set)


def _action(route: HTTPRoute, report: Report, *, delegate: bool) -> None:
    """A route, a redirect, a direct response or a delegate; what does not go with which."""
    if route.delegate is not None:
        if delegate:
            report.at("delegate").error("conflict", "a delegate cannot delegate further")
        if route.route or route.redirect is not None or route.direct_response is not None:
            report.at("delegate").error(
                "conflict", "does not go with route, redirect or directResponse"
            )
        if route.delegate.name and not is_dns_label(route.delegate.name.split(".")[0]):
            report.at("delegate", "name").error("invalid-value", "is not an object's name")
        return
    for name, value in (("redirect", route.redirect), ("directResponse", route.direct_response)):
        if value is None:
            continue
        others = {
            "route": route.route,
            "fault": route.fault if name == "redirect" else None,
            "rewrite": route.rewrite,
            "redirect": route.redirect if name == "directResponse" else None,
        }
        for other, given in others.items():
            if given:
                report.at(name).error("conflict", f"does not go with {other}")
    if route.redirect is not None:
        check_redirect(route.redirect, report.at("redirect"))
    if route.direct_response is not None:
        _direct_response(route, report.at("directResponse"))
    if not route.route and route.redirect is None and route.direct_response is None:
        report.error("required", "must have a route, a redirect or a directResponse")


def check_match(match: HTTPMatchRequest, report: Report) -> None:
    for name in ("uri", "scheme", "method", "authority"):
        value = getattr(match, name)
        if value is not None:
            check_string_match(value, report.at(name))
    if match.uri is not None and match.uri.prefix == "":
        report.at("uri", "prefix").error(
            "invalid-value", "must not be empty", "write / to match every path"
        )
    for field, headers in (("headers", match.headers), ("withoutHeaders", match.without_headers)):
        for name, value in headers.items():
            entry = report.at(field).key(name)
            check_header_name(name, entry)
            check_string_match(value, entry)
            if value.prefix == "":
                entry.at("prefix").error(
                    "invalid-value", "must not be empty", "write {} to ask for the header alone"
                )
    for name, value in match.query_params.items():
        entry = report.at("queryParams").key(name)
        if not name:
            entry.error("required", "a parameter's name must not be empty")
        check_string_match(value, entry)
    if match.port:
        check_port(match.port, report.at("port"))
    check_labels(match.source_labels, report.at("sourceLabels"))
    for index, gateway in enumerate(match.gateways):
        check_gateway_name(gateway, report.at("gateways", index))
    if match.source_namespace and not is_dns_label(match.source_namespace):
        report.at("sourceNamespace").error("invalid-value", "is not a namespace")


def check_gateway_name(name: str, report: Report) -> None:
    """``mesh``, ``name``, ``namespace/name``, or the older ``name.namespace.svc...``."""
    namespace, slash, short = name.rpartition("/")
    if slash and not is_dns_label(namespace):
        report.error("invalid-value", f"{namespace!r} is not a namespace")
    if not short:
        report.error("required", "must be a gateway's name")
    elif problem := fqdn_fault(short):
        report.error("invalid-value", f"is not a gateway's name: {problem}")


def check_route_destination(item: HTTPRouteDestination, report: Report, *, gateway: bool) -> None:
    if item.headers is not None:
        check_headers(item.headers, report.at("headers"))
    check_destination(item.destination, report.at("destination"), gateway=gateway)


def check_destination(
    destination: Destination | None, report: Report, *, gateway: bool = False
) -> None:
    if destination is None:
        report.error("required", "must be set")
        return
    host = destination.host
    if host == "*":
        report.at("host").error("invalid-host", "must be a service, not *")
    else:
        check_host_or_ip(host, report.at("host"))
        if gateway and host and "." not in host:
            report.at("host").warn(
                "short-name", "completed with this object's namespace", "write the full name"
            )
    if destination.subset and not is_label(destination.subset):
        report.at("subset").error(
            "invalid-value", f"must be a DNS label, is {destination.subset!r}"
        )
    if destination.port is not None:
        check_port(destination.port.number, report.at("port", "number"))


def check_weights(weights: Sequence[int], report: Report) -> None:
    """Several destinations need a total above 0; none may be negative."""
    for index, weight in enumerate(weights):
        if weight < 0:
            report.at(index, "weight").error("out-of-range", f"must not be negative, is {weight}")
    if len(weights) > 1 and sum(weights) == 0:
        report.error("out-of-range", "the weights add up to 0: nothing would be routed")
    if sum(weights) > 2**32 - 1:
        report.error("out-of-range", "the weights add up to more than 4294967295")


def check_tcp_destinations(
    items: Sequence[RouteDestination], report: Report, *, gateway: bool = False
) -> None:
    if not items:
        report.error("required", "must name at least one destination")
    check_weights([item.weight for item in items], report)
    for index, item in enumerate(items):
        check_destination(item.destination, report.at(index, "destination"), gateway=gateway)


def check_headers(headers: Headers, report: Report) -> None:
    for name in ("request", "response"):
        operations = getattr(headers, name)
        if operations is None:
            continue
        entry = report.at(name)
        for field in ("set", "add"):
            values: Mapping[str, str] = getattr(operations, field)
            for header, value in values.items():
                pseudo = name == "request" and field == "set" and header.lower() in AUTHORITY
                check_header_name(header, entry.at(field).key(header), strict=not pseudo)
                _header_value(value, entry.at(field).key(header))
        for index, header in enumerate(operations.remove):
            check_header_name(header, entry.at("remove", index), strict=True)


def _header_value(value: str, report: Report) -> None:
    """Envoy's command operators: ``%%`` is a percent sign, ``%NAME%`` and ``%NAME(anything):length%`` are commands."""
    if not _COMMANDS.fullmatch(value):
        report.error(
            "invalid-value", "a percent sign must be written %%, or be part of a %COMMAND%"
        )


def check_rewrite(rewrite: HTTPRewrite, report: Report) -> None:
    regex = rewrite.uri_regex_rewrite
    if not rewrite.uri and not rewrite.authority and regex is None:
        report.error("required", "must set uri, uriRegexRewrite or authority")
    if rewrite.uri and regex is not None:
        report.error("conflict", "only one of uri and uriRegexRewrite may be set")
    if regex is not None:
        if not regex.match or not regex.rewrite:
            report.at("uriRegexRewrite").error("required", "must have match and rewrite")
        check_regex(regex.match, report.at("uriRegexRewrite", "match"))


def check_redirect(redirect: HTTPRedirect, report: Report) -> None:
    if not any((redirect.uri, redirect.authority, redirect.scheme, redirect.port, redirect.redirect_code,
                redirect.derive_port, redirect.prefix_rewrite)):  # fmt: skip
        report.error("required", "must change something: uri, authority, scheme or port")
    if redirect.uri and redirect.prefix_rewrite:
        report.error("conflict", "only one of uri and prefixRewrite may be set")
    report.one_of({"port": redirect.port, "derivePort": redirect.derive_port})
    if redirect.scheme and not _SCHEME.fullmatch(redirect.scheme):
        report.at("scheme").error("invalid-value", f"must be http or https, is {redirect.scheme!r}")
    code = redirect.redirect_code
    if code and not 300 <= code <= 399:
        report.at("redirectCode").error("out-of-range", f"must be between 300 and 399, is {code}")
    if redirect.port is not None:
        check_port(redirect.port, report.at("port"))


def _direct_response(route: HTTPRoute, report: Report) -> None:
    response = route.direct_response
    assert response is not None
    check_status(response.status, report.at("status"))
    if response.body is None:
        return
    body = report.at("body")
    body.one_of({"string": response.body.string, "bytes": response.body.bytes}, required=True)
    size = len(response.body.string or response.body.bytes or "")
    if size > LONGEST_BODY:
        body.error("too-large", f"must have at most {LONGEST_BODY} bytes, has {size}")
    elif size > LARGEST_BODY:
        body.warn("too-large", f"has {size} bytes; more than {LARGEST_BODY} may affect every proxy")


def check_status(status: int, report: Report) -> None:
    if not 200 <= status <= 600:
        report.error("out-of-range", f"must be between 200 and 600, is {status}")


def check_retries(retries: HTTPRetry, report: Report) -> None:
    if retries.attempts < 0:
        report.at("attempts").error("out-of-range", f"must not be negative, is {retries.attempts}")
    others = (
        retries.per_try_timeout,
        retries.retry_on,
        retries.retry_remote_localities,
        retries.backoff,
    )
    if retries.attempts == 0 and any(others):
        report.error(
            "conflict", "attempts 0 turns retries off: nothing else may be set", "set attempts"
        )
    if retries.per_try_timeout:
        check_duration(retries.per_try_timeout, report.at("perTryTimeout"))
    if retries.backoff:
        check_duration(retries.backoff, report.at("backoff"))
    for policy in retries.retry_on.split(",") if retries.retry_on else ():
        name = policy.strip()
        if name.isascii() and name.isdigit():
            if len(name) != 3 or not 100 <= int(name) <= 599:
                report.at("retryOn").error("out-of-range", f"{name} is not an HTTP status")
        elif name not in RETRY_ON:
            report.at("retryOn").error("invalid-value", f"{name!r} is not a retry condition")


def check_delay(delay: FaultDelay, report: Report) -> None:
    if not 0 <= delay.percent <= 100:
        report.at("percent").error("out-of-range", f"must be between 0 and 100, is {delay.percent}")
    if delay.percentage is not None:
        check_percent(delay.percentage.value, report.at("percentage", "value"))
    members = {"fixedDelay": delay.fixed_delay, "exponentialDelay": delay.exponential_delay}
    report.one_of(members, required=True)
    for name, value in members.items():
        if value is not None:
            check_duration(value, report.at(name))


def check_abort(abort: FaultAbort, report: Report) -> None:
    members = {
        "httpStatus": abort.http_status,
        "grpcStatus": abort.grpc_status,
        "http2Error": abort.http2_error,
    }
    report.one_of(members, required=True)
    if abort.http_status is not None:
        check_status(abort.http_status, report.at("httpStatus"))
    if abort.grpc_status is not None and abort.grpc_status not in GRPC_STATUSES:
        report.at("grpcStatus").error(
            "invalid-value", f"{abort.grpc_status!r} is not a gRPC status name"
        )
    if abort.percentage is not None:
        check_percent(abort.percentage.value, report.at("percentage", "value"))


def _mirrors(route: HTTPRoute, report: Report) -> None:
    if route.mirror is not None:
        check_destination(route.mirror, report.at("mirror"))
        if route.mirrors:
            report.at("mirrors").error("conflict", "only one of mirror and mirrors may be set")
    if route.mirror_percent is not None:
        if route.mirror_percent > 100:
            report.at("mirrorPercent").error(
                "out-of-range", f"must be at most 100, is {route.mirror_percent}"
            )
        report.at("mirrorPercent").warn("deprecated", "is deprecated", "use mirrorPercentage")
    if route.mirror_percentage is not None:
        check_percent(route.mirror_percentage.value, report.at("mirrorPercentage", "value"))
        if route.mirrors:
            report.at("mirrorPercentage").error(
                "conflict", "each of mirrors has its own percentage"
            )
    for index, mirror in enumerate(route.mirrors):
        check_destination(mirror.destination, report.at("mirrors", index, "destination"))
        if mirror.percentage is not None:
            check_percent(
                mirror.percentage.value, report.at("mirrors", index, "percentage", "value")
            )


def check_cors(policy: CorsPolicy, report: Report) -> None:
    if policy.allow_origin and policy.allow_origins:
        report.error("conflict", "only one of allowOrigin and allowOrigins may be set")
    for index, origin in enumerate(policy.allow_origins):
        check_string_match(origin, report.at("allowOrigins", index))
    for index, method in enumerate(policy.allow_methods):
        if method not in METHODS and method != "*":
            report.at("allowMethods", index).error(
                "invalid-value", f"{method!r} is not an HTTP method"
            )
    for field, names in (
        ("allowHeaders", policy.allow_headers),
        ("exposeHeaders", policy.expose_headers),
    ):
        for index, name in enumerate(names):
            check_header_name(name, report.at(field, index))
    if policy.max_age is not None:
        if policy.max_age < 0 or policy.max_age % 1:
            report.at("maxAge").error("invalid-value", "must be whole seconds, not negative")
