"""The rules of one HTTP route: each bad part is named at its path, each good one passes."""

from __future__ import annotations

from typing import Any

import pytest

from windward.config.http_route import HTTPRoute
from windward.config.http_route_rules import check_http_route, check_weights
from windward.config.report import Report
from windward.config.walk import BAD, walk_struct

TO = {"destination": {"host": "reviews"}}


def judged(route: dict[str, Any], *, delegate: bool = False, gateway: bool = False) -> list[str]:
    """``path code`` of every error."""
    report = Report("r")
    spec = walk_struct(HTTPRoute, route, report)
    assert spec is not BAD, report.findings
    check_http_route(spec, report, delegate=delegate, gateway=gateway)
    return [
        f"{finding.path} {finding.code}"
        for finding in report.findings
        if finding.severity.value == "error"
    ]


@pytest.mark.parametrize(
    "route",
    [
        {"route": [TO]},
        {"route": [{**TO, "weight": 0}]},
        {"route": [{**TO, "weight": 90}, {**TO, "weight": 110}]},
        {"redirect": {"uri": "/new"}},
        {"redirect": {"scheme": "https", "port": 8443}},
        {"redirect": {"derivePort": "FROM_REQUEST_PORT"}},
        {"redirect": {"prefixRewrite": "/b"}, "match": [{"uri": {"prefix": "/a"}}, {"method": {"exact": "GET"}}]},
        {"directResponse": {"status": 503}},
        {"directResponse": {"status": 200, "body": {"string": ""}}},
        {"directResponse": {"status": 200, "body": {"bytes": "aGk="}}, "fault": {"delay": {"fixedDelay": "1s"}}},
        {"delegate": {"name": "other", "namespace": "shop"}},
        {"route": [TO], "timeout": "0s"},
        {"route": [TO], "retries": {"attempts": 0}},
        {"route": [TO], "retries": {"attempts": 2, "perTryTimeout": "2s", "retryOn": "5xx,gateway-error,503"}},
        {"route": [TO], "fault": {"abort": {"httpStatus": 200}}},
        {"route": [TO], "fault": {"abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 0.0001}}}},
        {"route": [TO], "fault": {"delay": {"fixedDelay": "1ms", "percentage": {"value": 100}}}},
        {"route": [TO], "rewrite": {"authority": "b"}},
        {"route": [TO], "rewrite": {"uriRegexRewrite": {"match": "^/a(.*)$", "rewrite": "\\1"}}},
        {"route": [TO], "headers": {"request": {"set": {":authority": "b", "Host": "c", "x-y": "1"}}}},
        {"route": [TO], "headers": {"response": {"add": {"x": "100%%", "y": "%REQ(x?y):10%"}, "remove": ["z"]}}},
        {"route": [TO], "match": [{"headers": {"x": {}, ":path": {"exact": ""}}}]},
        {"route": [TO], "corsPolicy": {"allowOrigins": [{"exact": "*"}], "allowMethods": ["GET"], "maxAge": "24h"}},
        {"route": [TO], "mirrors": [{"destination": {"host": "m"}, "percentage": {"value": 1.5}}]},
        {"route": [{"destination": {"host": "10.0.0.1", "subset": "v1", "port": {"number": 80}}}]},
        {"route": [{"destination": {"host": "*.example.com"}}]},
    ],
)  # fmt: skip
def test_good_routes(route: dict[str, Any]) -> None:
    assert judged(route) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"route": []}, "r required"),
        ({"name": "n" * 301}, "r.name too-large"),
        ({"redirect": {"uri": "/"}}, "r.redirect conflict"),
        ({"directResponse": {"status": 200}}, "r.directResponse conflict"),
        ({"route": [], "redirect": {"uri": "/"}, "directResponse": {"status": 200}}, "r.directResponse conflict"),
        ({"route": [], "redirect": {"uri": "/"}, "rewrite": {"uri": "/"}}, "r.redirect conflict"),
        ({"route": [], "redirect": {"uri": "/"}, "fault": {"abort": {"httpStatus": 500}}}, "r.redirect conflict"),
        ({"route": [], "redirect": {}}, "r.redirect required"),
        ({"route": [], "redirect": {"redirectCode": 200}}, "r.redirect.redirectCode out-of-range"),
        ({"route": [], "redirect": {"port": 65536}}, "r.redirect.port out-of-range"),
        ({"route": [], "redirect": {"port": 80, "derivePort": "FROM_REQUEST_PORT"}}, "r.redirect conflict"),
        ({"route": [], "redirect": {"scheme": "ftp"}}, "r.redirect.scheme invalid-value"),
        ({"route": [], "redirect": {"uri": "/", "prefixRewrite": "/"}}, "r.redirect conflict"),
        ({"route": [], "redirect": {"prefixRewrite": "/b"}, "match": [{"uri": {"exact": "/a"}}]},
         "r.redirect.prefixRewrite conflict"),
        ({"route": [], "directResponse": {"status": 199}}, "r.directResponse.status out-of-range"),
        ({"route": [], "directResponse": {"status": 200, "body": {}}}, "r.directResponse.body required"),
        ({"route": [], "directResponse": {"status": 200, "body": {"string": "a", "bytes": "b"}}},
         "r.directResponse.body conflict"),
        ({"route": [], "directResponse": {"status": 200, "body": {"string": "x" * 1_000_001}}},
         "r.directResponse.body too-large"),
        ({"delegate": {"name": "a"}}, "r.delegate conflict"),
        ({"route": [], "delegate": {"name": "A b"}}, "r.delegate.name invalid-value"),
        ({"timeout": "-1s"}, "r.timeout out-of-range"),
        ({"timeout": "100us"}, "r.timeout out-of-range"),
        ({"timeout": "1.0005s"}, "r.timeout invalid-value"),
        ({"retries": {"attempts": -1}}, "r.retries.attempts out-of-range"),
        ({"retries": {"perTryTimeout": "1s"}}, "r.retries conflict"),
        ({"retries": {"attempts": 1, "perTryTimeout": "1us"}}, "r.retries.perTryTimeout out-of-range"),
        ({"retries": {"attempts": 1, "retryOn": "5xx,never"}}, "r.retries.retryOn invalid-value"),
        ({"retries": {"attempts": 1, "retryOn": "999"}}, "r.retries.retryOn out-of-range"),
        ({"fault": {}}, "r.fault required"),
        ({"fault": {"abort": {}}}, "r.fault.abort required"),
        ({"fault": {"abort": {"httpStatus": 199}}}, "r.fault.abort.httpStatus out-of-range"),
        ({"fault": {"abort": {"httpStatus": 601}}}, "r.fault.abort.httpStatus out-of-range"),
        ({"fault": {"abort": {"grpcStatus": "BROKEN"}}}, "r.fault.abort.grpcStatus invalid-value"),
        ({"fault": {"abort": {"httpStatus": 500, "grpcStatus": "OK"}}}, "r.fault.abort conflict"),
        ({"fault": {"abort": {"httpStatus": 500, "percentage": {"value": 101}}}}, "r.fault.abort.percentage.value out-of-range"),
        ({"fault": {"delay": {}}}, "r.fault.delay required"),
        ({"fault": {"delay": {"fixedDelay": "0s"}}}, "r.fault.delay.fixedDelay out-of-range"),
        ({"fault": {"delay": {"fixedDelay": "1s", "percent": 101}}}, "r.fault.delay.percent out-of-range"),
        ({"fault": {"delay": {"fixedDelay": "1s", "percentage": {"value": -1}}}}, "r.fault.delay.percentage.value out-of-range"),
        ({"fault": {"delay": {"fixedDelay": "1s", "percentage": {"value": 0.00001}}}},
         "r.fault.delay.percentage.value out-of-range"),
        ({"rewrite": {}}, "r.rewrite required"),
        ({"rewrite": {"uri": "/", "uriRegexRewrite": {"match": "a", "rewrite": "b"}}}, "r.rewrite conflict"),
        ({"rewrite": {"uriRegexRewrite": {"match": "a"}}}, "r.rewrite.uriRegexRewrite required"),
        ({"rewrite": {"uriRegexRewrite": {"match": "(?=a)", "rewrite": "b"}}}, "r.rewrite.uriRegexRewrite.match invalid-regex"),
        ({"rewrite": {"authority": "a"}, "headers": {"request": {"set": {"HOST": "b"}}}}, "r.rewrite.authority conflict"),
        ({"route": [{}]}, "r.route[0].destination required"),
        ({"route": [{"destination": {}}]}, "r.route[0].destination.host required"),
        ({"route": [{"destination": {"host": "*"}}]}, "r.route[0].destination.host invalid-host"),
        ({"route": [{"destination": {"host": "a_b"}}]}, "r.route[0].destination.host invalid-host"),
        ({"route": [{"destination": {"host": "a", "subset": "V_1"}}]}, "r.route[0].destination.subset invalid-value"),
        ({"route": [{"destination": {"host": "a", "port": {}}}]}, "r.route[0].destination.port.number out-of-range"),
        ({"route": [{**TO, "weight": -1}]}, "r.route[0].weight out-of-range"),
        ({"route": [TO, TO]}, "r.route out-of-range"),
        ({"route": [{**TO, "headers": {"request": {"remove": [""]}}}]}, "r.route[0].headers.request.remove[0] required"),
        ({"headers": {"request": {"add": {"host": "a"}}}}, 'r.headers.request.add["host"] invalid-value'),
        ({"headers": {"request": {"set": {":path": "a"}}}}, 'r.headers.request.set[":path"] invalid-value'),
        ({"headers": {"response": {"set": {"host": "a"}}}}, 'r.headers.response.set["host"] invalid-value'),
        ({"headers": {"response": {"set": {"a b": "a"}}}}, 'r.headers.response.set["a b"] invalid-value'),
        ({"headers": {"response": {"set": {"a": "50%"}}}}, 'r.headers.response.set["a"] invalid-value'),
        ({"headers": {"request": {"remove": ["a", "é"]}}}, "r.headers.request.remove[1] invalid-value"),
        ({"match": [{"uri": {"prefix": ""}}]}, "r.match[0].uri.prefix invalid-value"),
        ({"match": [{"uri": {"exact": "a", "prefix": "b"}}]}, "r.match[0].uri conflict"),
        ({"match": [{"uri": {"regex": ""}}]}, "r.match[0].uri.regex required"),
        ({"match": [{}, {"method": {"regex": "["}}]}, "r.match[1].method.regex invalid-regex"),
        ({"match": [{"headers": {"": {"exact": "a"}}}]}, 'r.match[0].headers[""] required'),
        ({"match": [{"headers": {"x": {"prefix": ""}}}]}, 'r.match[0].headers["x"].prefix invalid-value'),
        ({"match": [{"withoutHeaders": {"a b": {}}}]}, 'r.match[0].withoutHeaders["a b"] invalid-value'),
        ({"match": [{"queryParams": {"": {}}}]}, 'r.match[0].queryParams[""] required'),
        ({"match": [{"queryParams": {"q": {"regex": "*"}}}]}, 'r.match[0].queryParams["q"].regex invalid-regex'),
        ({"match": [{"port": 65536}]}, "r.match[0].port out-of-range"),
        ({"match": [{"sourceLabels": {"@": "a"}}]}, 'r.match[0].sourceLabels["@"] invalid-value'),
        ({"match": [{"gateways": ["mesh", "a b"]}]}, "r.match[0].gateways[1] invalid-value"),
        ({"match": [{"gateways": ["A/b"]}]}, "r.match[0].gateways[0] invalid-value"),
        ({"match": [{"gateways": ["ns/"]}]}, "r.match[0].gateways[0] required"),
        ({"match": [{"sourceNamespace": "a.b"}]}, "r.match[0].sourceNamespace invalid-value"),
        ({"mirror": {"host": ""}}, "r.mirror.host required"),
        ({"mirror": {"host": "a"}, "mirrors": [{"destination": {"host": "a"}}]}, "r.mirrors conflict"),
        ({"mirrors": [{}]}, "r.mirrors[0].destination required"),
        ({"mirrors": [{"destination": {"host": "a"}, "percentage": {"value": 101}}]},
         "r.mirrors[0].percentage.value out-of-range"),
        ({"mirrorPercent": 101}, "r.mirrorPercent out-of-range"),
        ({"mirrorPercentage": {"value": 101}}, "r.mirrorPercentage.value out-of-range"),
        ({"corsPolicy": {"allowMethods": ["get"]}}, "r.corsPolicy.allowMethods[0] invalid-value"),
        ({"corsPolicy": {"allowOrigins": [{"regex": "("}]}}, "r.corsPolicy.allowOrigins[0].regex invalid-regex"),
        ({"corsPolicy": {"exposeHeaders": ["a b"]}}, "r.corsPolicy.exposeHeaders[0] invalid-value"),
        ({"corsPolicy": {"maxAge": "1.5s"}}, "r.corsPolicy.maxAge invalid-value"),
    ],
)  # fmt: skip
def test_one_fault_one_finding_at_its_path(change: dict[str, Any], expected: str) -> None:
    assert judged({"route": [TO], **change}) == [expected]


def test_all_faults_of_a_route_come_at_once() -> None:
    route = {
        "match": [{"port": 70000}, {"uri": {"regex": "("}}],
        "route": [{"destination": {"host": "a b"}, "weight": -3}],
        "timeout": "-1s",
    }
    assert judged(route) == [
        "r.match[0].port out-of-range",
        "r.match[1].uri.regex invalid-regex",
        "r.timeout out-of-range",
        "r.route[0].weight out-of-range",
        "r.route[0].destination.host invalid-host",
    ]


def test_a_delegate_does_not_delegate() -> None:
    assert judged({"delegate": {"name": "a"}}, delegate=True) == ["r.delegate conflict"]


def test_warnings_of_a_gateway_and_of_a_large_body() -> None:
    report = Report("r")
    route = {"route": [TO]}
    check_http_route(walk_struct(HTTPRoute, route, report), report, delegate=False, gateway=True)
    body = {"directResponse": {"status": 200, "body": {"string": "x" * 100_001}}}
    check_http_route(walk_struct(HTTPRoute, body, report), report, delegate=False, gateway=False)
    assert [(item.path, item.code) for item in report.findings] == [
        ("r.route[0].destination.host", "short-name"),
        ("r.directResponse.body", "too-large"),
    ]
    assert not report.has_errors


@pytest.mark.parametrize(
    ("weights", "errors"),
    [((), 0), ((0,), 0), ((0, 0), 1), ((1, 0), 0), ((-1, 1), 2), ((2**31 - 1, 2**31 - 1), 0),
     ((2**31 - 1, 2**31 - 1, 2), 1)],
)  # fmt: skip
def test_weights(weights: tuple[int, ...], errors: int) -> None:
    report = Report("w")
    check_weights(weights, report)
    assert len(report.findings) == errors
