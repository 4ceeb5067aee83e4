"""Routes of one VirtualService for one proxy: matches, weights, faults, retries, rewrites. Source: route.go of Istio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as route
from envoy.extensions.filters.common.fault.v3 import fault_pb2 as common_fault
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import wrappers_pb2

from services.pilot.envoy import names
from services.pilot.envoy.common import duration, pack
from services.pilot.envoy.match import (
    any_path,
    authority_override,
    header_options,
    removals,
    route_match,
)
from windward.config.hosts import resolve
from windward.config.http_route import (
    Destination,
    FaultAbort,
    FaultDelay,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPRetry,
    HTTPRoute,
    RedirectPortSelection,
)
from windward.config.http_route_rules import GRPC_STATUSES

FAULT_FILTER = "envoy.filters.http.fault"
DEFAULT_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
DEFAULT_RETRIES = 2
HOST_SELECTION_ATTEMPTS = 32
"""How often a retry draws again when it drew a host that has failed already. Istio's 5 are too few where there are two hosts,
one of them dead: least-request draws the dead one, which has nothing to do, with up to 3/4, so six times in a row in one of
six retries, and in one of 13,000 with 32. A draw costs nothing beside a connection.
"""
MILLION = 1_000_000
REDIRECT_CODES = {
    301: route.RedirectAction.MOVED_PERMANENTLY,
    302: route.RedirectAction.FOUND,
    303: route.RedirectAction.SEE_OTHER,
    307: route.RedirectAction.TEMPORARY_REDIRECT,
    308: route.RedirectAction.PERMANENT_REDIRECT,
}


@dataclass(frozen=True, slots=True)
class RouteContext:
    """What the routes of a VirtualService depend on beside itself."""

    namespace: str
    """Of the VirtualService: short names are completed with it."""
    port: int
    """The listener's port: where a destination that names none is called."""
    gateway: str
    """``mesh``, or ``namespace/name`` of the gateway."""
    proxy_namespace: str
    proxy_labels: Mapping[str, str]
    port_of: Callable[[str, int], int]
    """(host, listener's port) -> the service's port to use when the destination names none."""


def http_routes(http: Sequence[HTTPRoute], context: RouteContext) -> list[route.Route]:
    """In order; a route that matches everything ends the list."""
    made: list[route.Route] = []
    for item in http:
        matches: Sequence[HTTPMatchRequest | None] = item.match or (None,)
        for match in matches:
            if match is not None and not applies(match, context):
                continue
            built = build_route(item, match, context)
            made.append(built)
            if catches_all(built.match):
                return made
    return made


def applies(match: HTTPMatchRequest, context: RouteContext) -> bool:
    """Whether a match can hold at this proxy, listener and gateway."""
    if match.port and match.port != context.port:
        return False
    if match.gateways and context.gateway not in {
        _gateway(name, context.namespace) for name in match.gateways
    }:
        return False
    if match.source_namespace and match.source_namespace != context.proxy_namespace:
        return False
    return all(context.proxy_labels.get(key) == value for key, value in match.source_labels.items())


def _gateway(name: str, namespace: str) -> str:
    return name if name == "mesh" or "/" in name else f"{namespace}/{name}"


def catches_all(match: route.RouteMatch) -> bool:
    return match.prefix == "/" and not match.headers and not match.query_parameters


def build_route(
    item: HTTPRoute, match: HTTPMatchRequest | None, context: RouteContext
) -> route.Route:
    name = ".".join(part for part in (item.name, match.name if match else "") if part)
    made = route.Route(name=name, match=route_match(match) if match else any_path())
    if item.headers is not None:
        made.request_headers_to_add.extend(header_options(item.headers.request))
        made.request_headers_to_remove.extend(removals(item.headers.request))
        made.response_headers_to_add.extend(header_options(item.headers.response))
        made.response_headers_to_remove.extend(removals(item.headers.response))
    if item.fault is not None:
        made.typed_per_filter_config[FAULT_FILTER].CopyFrom(pack(fault(item.fault)))
    if item.redirect is not None:
        made.redirect.CopyFrom(_redirect(item))
    elif item.direct_response is not None:
        made.direct_response.CopyFrom(_direct_response(item))
    else:
        made.route.CopyFrom(_action(item, match, context))
    return made


def _action(
    item: HTTPRoute, match: HTTPMatchRequest | None, context: RouteContext
) -> route.RouteAction:
    timeout = duration(float(item.timeout or 0))
    # With `max_stream_duration` present Envoy's router no longer looks at `timeout`: both say the same.
    action = route.RouteAction(
        timeout=timeout,
        max_stream_duration=route.RouteAction.MaxStreamDuration(
            max_stream_duration=timeout, grpc_timeout_header_max=timeout
        ),
        cluster_not_found_response_code=route.RouteAction.SERVICE_UNAVAILABLE,
    )
    _destinations(action, item, context)
    policy = retry_policy(item.retries)
    if policy is not None:
        action.retry_policy.CopyFrom(policy)
    authority = authority_override(item.headers)
    if item.rewrite is not None:
        authority = item.rewrite.authority or authority
        if item.rewrite.uri:
            _rewrite(action, item.rewrite.uri, match)
    if authority:
        action.host_rewrite_literal = authority
    return action


def _rewrite(action: route.RouteAction, uri: str, match: HTTPMatchRequest | None) -> None:
    """A prefix is replaced for a prefix match, the whole path otherwise."""
    if match is not None and match.uri is not None and match.uri.regex is not None:
        action.regex_rewrite.pattern.regex = match.uri.regex
        action.regex_rewrite.substitution = uri.replace("\\", "\\\\")
        return
    action.prefix_rewrite = uri


def _destinations(action: route.RouteAction, item: HTTPRoute, context: RouteContext) -> None:
    """One destination is the cluster itself, whatever its weight; of several, weight 0 is left out."""
    if len(item.route) == 1 and item.route[0].headers is None:
        action.cluster = cluster_name(item.route[0].destination, context)
        return
    weighted = [part for part in item.route if part.weight > 0 or len(item.route) == 1]
    for part in weighted:
        cluster = route.WeightedCluster.ClusterWeight(
            name=cluster_name(part.destination, context),
            weight=wrappers_pb2.UInt32Value(value=part.weight or 100),
        )
        if part.headers is not None:
            cluster.request_headers_to_add.extend(header_options(part.headers.request))
            cluster.request_headers_to_remove.extend(removals(part.headers.request))
            cluster.response_headers_to_add.extend(header_options(part.headers.response))
            cluster.response_headers_to_remove.extend(removals(part.headers.response))
            if override := authority_override(part.headers):
                cluster.host_rewrite_literal = override
        action.weighted_clusters.clusters.append(cluster)


def cluster_name(destination: Destination | None, context: RouteContext) -> str:
    assert destination is not None, "validation requires a destination"
    host = resolve(destination.host, context.namespace)
    port = destination.port.number if destination.port else context.port_of(host, context.port)
    return names.outbound(port, destination.subset, host)


def destinations(http: Sequence[HTTPRoute], context: RouteContext) -> Iterator[str]:
    """Every cluster that these routes may send to."""
    for item in http:
        for part in item.route:
            yield cluster_name(part.destination, context)


def retry_policy(retries: HTTPRetry | None) -> route.RetryPolicy | None:
    """Istio's default where nothing is said; None where attempts is 0. Statuses in retryOn become retriable ones."""
    if retries is not None and retries.attempts == 0:
        return None
    predicate = route.RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts",
        typed_config=pack(previous_hosts_pb2.PreviousHostsPredicate()),
    )
    policy = route.RetryPolicy(
        retry_on=DEFAULT_RETRY_ON,
        num_retries=wrappers_pb2.UInt32Value(
            value=retries.attempts if retries else DEFAULT_RETRIES
        ),
        retry_host_predicate=[predicate],
        host_selection_retry_max_attempts=HOST_SELECTION_ATTEMPTS,
    )
    if retries is None:
        return policy
    if retries.retry_on:
        conditions = [part.strip() for part in retries.retry_on.split(",")]
        statuses = [int(part) for part in conditions if part.isdigit()]
        words = [part for part in conditions if not part.isdigit()]
        if statuses and "retriable-status-codes" not in words:
            words.append("retriable-status-codes")
        policy.retry_on = ",".join(words)
        policy.retriable_status_codes.extend(statuses)
    if retries.per_try_timeout:
        policy.per_try_timeout.CopyFrom(duration(retries.per_try_timeout))
    return policy


def _redirect(item: HTTPRoute) -> route.RedirectAction:
    redirect = item.redirect
    assert redirect is not None
    made = route.RedirectAction(
        host_redirect=redirect.authority,
        response_code=REDIRECT_CODES.get(
            redirect.redirect_code or 301, route.RedirectAction.MOVED_PERMANENTLY
        ),
    )
    if redirect.prefix_rewrite:
        made.prefix_rewrite = redirect.prefix_rewrite
    else:
        made.path_redirect = redirect.uri
    if redirect.scheme:
        made.scheme_redirect = redirect.scheme
    if redirect.port:
        made.port_redirect = redirect.port
    elif redirect.derive_port is RedirectPortSelection.FROM_PROTOCOL_DEFAULT:
        made.port_redirect = 443 if redirect.scheme == "https" else 80
    return made


def _direct_response(item: HTTPRoute) -> route.DirectResponseAction:
    response = item.direct_response
    assert response is not None
    made = route.DirectResponseAction(status=response.status)
    if response.body is not None and response.body.string is not None:
        made.body.CopyFrom(base_pb2.DataSource(inline_string=response.body.string))
    return made


def fault(injection: HTTPFaultInjection) -> fault_pb2.HTTPFault:
    made = fault_pb2.HTTPFault()
    if injection.delay is not None:
        made.delay.CopyFrom(_delay(injection.delay))
    if injection.abort is not None:
        made.abort.CopyFrom(_abort(injection.abort))
    return made


def _delay(delay: FaultDelay) -> common_fault.FaultDelay:
    share = delay.percentage.value if delay.percentage else 0.0
    return common_fault.FaultDelay(
        fixed_delay=duration(float(delay.fixed_delay or 0)), percentage=_fraction(share)
    )


def _abort(abort: FaultAbort) -> fault_pb2.FaultAbort:
    share = abort.percentage.value if abort.percentage else 0.0
    made = fault_pb2.FaultAbort(percentage=_fraction(share))
    if abort.grpc_status is not None:
        made.grpc_status = GRPC_STATUSES.index(abort.grpc_status)
    else:
        made.http_status = abort.http_status or 0
    return made


def _fraction(percent: float) -> percent_pb2.FractionalPercent:
    return percent_pb2.FractionalPercent(
        numerator=round(percent * MILLION / 100), denominator=percent_pb2.FractionalPercent.MILLION
    )
