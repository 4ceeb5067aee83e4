from __future__ import annotations

import pytest
from envoy.config.route.v3 import route_components_pb2 as route
from envoy.extensions.filters.http.fault.v3 import fault_pb2
from envoy.type.v3 import percent_pb2

from services.pilot.envoy.route import DEFAULT_RETRY_ON, FAULT_FILTER, RouteContext, http_routes
from tests.unit.pilot.mesh import REVIEWS, make

DEST = {"destination": {"host": "reviews", "port": {"number": 9080}}}


def context(**changes) -> RouteContext:
    fields = {
        "namespace": "shop",
        "port": 9080,
        "gateway": "mesh",
        "proxy_namespace": "shop",
        "proxy_labels": {"app": "caller"},
        "port_of": lambda _, wanted: wanted,
    }
    return RouteContext(**{**fields, **changes})


def built(*http, **changes) -> list[route.Route]:
    gateways = {"gateways": ["mesh", "edge"]}
    item = make("VirtualService", "reviews", {"hosts": [REVIEWS], **gateways, "http": list(http)})
    return http_routes(item.spec.http, context(**changes))


def one(http, **changes) -> route.Route:
    (made,) = built(http, **changes)
    return made


def dest(subset="", weight=0, **changes):
    made = {"destination": {"host": "reviews", "port": {"number": 9080}, "subset": subset}}
    return {**made, "weight": weight, **changes}


def cluster(subset=""):
    return f"outbound|9080|{subset}|{REVIEWS}"


def test_one_destination_whatever_its_weight():
    assert one({"route": [dest("v1", 7)]}).route.cluster == cluster("v1")


def test_weights_without_the_ones_that_are_zero():
    made = one({"route": [dest("v1", 90), dest("v2", 10), dest("v3", 0)]})
    assert [(item.name, item.weight.value) for item in made.route.weighted_clusters.clusters] == [
        (cluster("v1"), 90),
        (cluster("v2"), 10),
    ]


def test_the_first_route_that_matches_everything_ends_the_list():
    made = built(
        {"match": [{"uri": {"prefix": "/a"}}], "route": [DEST]},
        {"name": "all", "route": [DEST]},
        {"name": "never", "route": [DEST]},
    )
    assert [item.name for item in made] == ["", "all"]


def test_a_route_a_match_named_after_both():
    made = built(
        {
            "name": "r",
            "match": [{"name": "a", "uri": {"prefix": "/a"}}, {"uri": {"exact": "/b"}}],
            "route": [DEST],
        }
    )
    assert [item.name for item in made] == ["r.a", "r"]


def test_timeouts_are_off_unless_asked_for():
    assert one({"route": [DEST]}).route.HasField("timeout")
    assert one({"route": [DEST]}).route.timeout.ToMilliseconds() == 0
    made = one({"route": [DEST], "timeout": "1500ms"}).route
    assert made.timeout.ToMilliseconds() == 1500
    assert made.max_stream_duration.max_stream_duration.ToMilliseconds() == 1500
    assert made.max_stream_duration.grpc_timeout_header_max.ToMilliseconds() == 1500


def test_retries_by_default():
    made = one({"route": [DEST]}).route.retry_policy
    assert (made.num_retries.value, made.retry_on) == (2, DEFAULT_RETRY_ON)
    assert made.host_selection_retry_max_attempts == 32
    (predicate,) = made.retry_host_predicate
    assert predicate.name == "envoy.retry_host_predicates.previous_hosts"
    assert predicate.typed_config.type_url.endswith("PreviousHostsPredicate")
    assert not made.retriable_status_codes


def test_retries_as_asked():
    retries = {"attempts": 5, "perTryTimeout": "2s", "retryOn": "503, gateway-error"}
    made = one({"route": [DEST], "retries": retries}).route.retry_policy
    assert made.num_retries.value == 5
    assert made.per_try_timeout.seconds == 2
    assert made.retry_on == "gateway-error,retriable-status-codes"
    assert list(made.retriable_status_codes) == [503]


def test_no_retries_when_asked_for_none():
    made = one({"route": [DEST], "retries": {"attempts": 0}})
    assert not made.route.HasField("retry_policy")


def test_faults_are_a_routes_own():
    made = one(
        {
            "route": [DEST],
            "fault": {
                "delay": {"fixedDelay": "250ms", "percentage": {"value": 0.1}},
                "abort": {"httpStatus": 555, "percentage": {"value": 100}},
            },
        }
    )
    fault = fault_pb2.HTTPFault()
    assert made.typed_per_filter_config[FAULT_FILTER].Unpack(fault)
    assert fault.delay.fixed_delay.ToMilliseconds() == 250
    assert fault.delay.percentage.numerator == 1000
    assert fault.delay.percentage.denominator == percent_pb2.FractionalPercent.MILLION
    assert (fault.abort.http_status, fault.abort.percentage.numerator) == (555, 1_000_000)
    assert not one({"route": [DEST]}).typed_per_filter_config


def test_a_grpc_abort():
    abort = {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 50}}
    made = one({"route": [DEST], "fault": {"abort": abort}})
    fault = fault_pb2.HTTPFault()
    assert made.typed_per_filter_config[FAULT_FILTER].Unpack(fault)
    assert (fault.abort.grpc_status, fault.abort.percentage.numerator) == (14, 500_000)


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ({"port": 9081}, {}),
        ({"sourceLabels": {"app": "other"}}, {}),
        ({"sourceNamespace": "other"}, {}),
        ({"gateways": ["edge"]}, {}),
        ({"gateways": ["mesh"]}, {"gateway": "shop/edge"}),
    ],
)
def test_matches_that_cannot_hold_here(match, changes):
    assert built({"match": [match], "route": [DEST]}, **changes) == []


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ({"port": 9080}, {}),
        ({"sourceLabels": {"app": "caller"}}, {}),
        ({"sourceNamespace": "shop"}, {}),
        ({"gateways": ["mesh"]}, {}),
        ({"gateways": ["edge"]}, {"gateway": "shop/edge"}),
    ],
)
def test_matches_that_hold_for_all_requests_here(match, changes):
    made = one({"match": [match], "route": [DEST]}, **changes)
    assert made.match == route.RouteMatch(prefix="/")


def test_a_destination_without_a_port_has_the_services():
    made = one({"route": [{"destination": {"host": "reviews"}}]}, port_of=lambda *_: 77)
    assert made.route.cluster == f"outbound|77||{REVIEWS}"


def test_short_names_are_of_the_rules_namespace():
    made = one({"route": [DEST]}, namespace="other")
    assert made.route.cluster == "outbound|9080||reviews.other.svc.cluster.local"


def test_rewriting():
    prefix = {"match": [{"uri": {"prefix": "/a"}}], "route": [DEST], "rewrite": {"uri": "/b"}}
    assert one(prefix).route.prefix_rewrite == "/b"
    pattern = {
        "match": [{"uri": {"regex": "/a/.*"}}],
        "route": [DEST],
        "rewrite": {"uri": "/b\\1", "authority": "inner"},
    }
    made = one(pattern).route
    assert made.regex_rewrite.pattern.regex == "/a/.*"
    assert made.regex_rewrite.substitution == "/b\\\\1"
    assert made.host_rewrite_literal == "inner"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (None, route.RedirectAction.MOVED_PERMANENTLY),
        (302, route.RedirectAction.FOUND),
        (303, route.RedirectAction.SEE_OTHER),
        (307, route.RedirectAction.TEMPORARY_REDIRECT),
        (308, route.RedirectAction.PERMANENT_REDIRECT),
    ],
)
def test_redirects(code, expected):
    redirect = {"uri": "/new", "authority": "new.example.com"}
    made = one({"redirect": {**redirect, **({"redirectCode": code} if code else {})}}).redirect
    assert (made.path_redirect, made.host_redirect) == ("/new", "new.example.com")
    assert made.response_code == expected


def test_redirects_to_a_scheme_and_its_port():
    made = one({"redirect": {"scheme": "https", "derivePort": "FROM_PROTOCOL_DEFAULT"}}).redirect
    assert (made.scheme_redirect, made.port_redirect) == ("https", 443)
    assert one({"redirect": {"port": 8443, "scheme": "https"}}).redirect.port_redirect == 8443


def test_direct_responses():
    made = one({"directResponse": {"status": 418, "body": {"string": "short and stout"}}})
    assert made.direct_response.status == 418
    assert made.direct_response.body.inline_string == "short and stout"


def test_header_operations_of_a_route_and_of_a_destination():
    operations = {
        "request": {"set": {"b": "2", "a": "1"}, "add": {"c": "3"}, "remove": ["d"]},
        "response": {"set": {"e": "5"}, "remove": ["f"]},
    }
    overwrite, append = 2, 0
    made = one({"route": [DEST], "headers": operations})
    assert [
        (item.header.key, item.header.value, item.append_action)
        for item in made.request_headers_to_add
    ] == [("a", "1", overwrite), ("b", "2", overwrite), ("c", "3", append)]
    assert list(made.request_headers_to_remove) == ["d"]
    assert [item.header.key for item in made.response_headers_to_add] == ["e"]
    assert list(made.response_headers_to_remove) == ["f"]
    (weighted,) = one({"route": [{**DEST, "headers": operations}]}).route.weighted_clusters.clusters
    assert weighted.weight.value == 100
    assert [item.header.key for item in weighted.request_headers_to_add] == ["a", "b", "c"]


def test_the_authority_is_rewritten_not_added():
    operations = {"request": {"set": {"Host": "inner", "a": "1"}}}
    made = one({"route": [DEST], "headers": operations})
    assert made.route.host_rewrite_literal == "inner"
    assert [item.header.key for item in made.request_headers_to_add] == ["a"]
