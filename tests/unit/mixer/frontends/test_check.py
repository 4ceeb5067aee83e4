from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2, external_auth_pb2_grpc

from services.mixer import metrics
from services.mixer.adapters.checks import Verdict
from services.mixer.attributes.workloads import Workloads
from services.mixer.frontends.check import (
    FAIL_POLICY_HEADER,
    CheckService,
    attributes,
    response,
)
from services.mixer.runtime.rules import RuleSet, compile_rules
from tests.unit.mixer.frontends.wire import a_workload, served
from tests.unit.mixer.objects import a_denier, a_list, a_rule, an_instance
from windward.expression.vocabulary import VOCABULARY, ValueType

CALLER = "spiffe://cluster.local/ns/harbour/sa/storefront"
PYTHON_TYPES = {
    ValueType.STRING: str,
    ValueType.INT64: int,
    ValueType.BOOL: bool,
    ValueType.STRING_MAP: dict,
    ValueType.IP_ADDRESS: (ipaddress.IPv4Address, ipaddress.IPv6Address),
}


def a_question(
    path: str = "/books/2", *, source: str = "10.0.0.1", principal: str = CALLER, **headers: str
) -> attribute_context_pb2.AttributeContext:
    given = attribute_context_pb2.AttributeContext()
    given.source.address.socket_address.address = source
    given.source.address.socket_address.port_value = 40_000
    given.source.principal = principal
    given.destination.address.socket_address.address = "10.0.0.2"
    given.destination.address.socket_address.port_value = 9080
    http = given.request.http
    http.id, http.method, http.path, http.host, http.scheme = "7", "GET", path, "catalog", "http"
    http.size = 12
    http.headers.update({key.replace("_", "-"): value for key, value in headers.items()})
    given.context_extensions["destination.service.host"] = "catalog.harbour.svc.cluster.local"
    given.context_extensions["destination.service.namespace"] = "harbour"
    return given


def known() -> Workloads:
    workloads = Workloads()
    workloads.put(a_workload("storefront", "10.0.0.1"))
    workloads.put(a_workload("catalog", "10.0.0.2", "v2"))
    return workloads


def test_a_request_becomes_attributes():
    bag = attributes(a_question("/books/2?page=3", user_agent="boat/1", tester="yes"), known())
    expected = {
        "context.reporter.kind": "inbound",
        "context.protocol": "http",
        "request.id": "7",
        "request.method": "GET",
        "request.path": "/books/2?page=3",
        "request.url_path": "/books/2",
        "request.host": "catalog",
        "request.scheme": "http",
        "request.useragent": "boat/1",
        "request.size": 12,
        "request.headers": {"user-agent": "boat/1", "tester": "yes"},
        "connection.mtls": True,
        "source.ip": ipaddress.ip_address("10.0.0.1"),
        "source.port": 40_000,
        "source.principal": "cluster.local/ns/harbour/sa/storefront",
        "source.namespace": "harbour",
        "source.serviceAccount": "storefront",
        "source.name": "storefront",
        "source.workload.name": "storefront",
        "source.workload.namespace": "harbour",
        "source.labels": {"app": "storefront", "version": "v1"},
        "destination.ip": ipaddress.ip_address("10.0.0.2"),
        "destination.port": 9080,
        "destination.labels": {"app": "catalog", "version": "v2"},
        "destination.service.host": "catalog.harbour.svc.cluster.local",
        "destination.service.namespace": "harbour",
    }
    assert {key: bag.get(key) for key in expected} == expected


def test_every_attribute_is_in_the_vocabulary_with_its_type():
    bag = attributes(a_question(user_agent="boat/1"), known())
    assert bag.keys() <= VOCABULARY.keys()
    for name, value in bag.items():
        if VOCABULARY[name] in PYTHON_TYPES:
            assert isinstance(value, PYTHON_TYPES[VOCABULARY[name]]), name  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content_type", "protocol"),
    [
        ("application/grpc", "grpc"),
        ("application/grpc+proto", "grpc"),
        ("application/json", "http"),
        ("", "http"),
    ],
)
def test_the_content_type_tells_the_protocol(content_type, protocol):
    bag = attributes(a_question(content_type=content_type), Workloads())
    assert bag["context.protocol"] == protocol


def test_a_caller_without_a_certificate_has_no_principal():
    bag = attributes(a_question(principal="", source="10.9.9.9"), known())
    assert bag["connection.mtls"] is False
    assert not bag.keys() & {"source.principal", "source.user", "source.namespace", "source.labels"}
    assert bag["source.ip"] == ipaddress.ip_address("10.9.9.9")


def test_an_identity_that_is_no_workloads_names_no_namespace():
    bag = attributes(a_question(principal="spiffe://elsewhere/boat", source="10.9.9.9"), known())
    assert bag["source.principal"] == "elsewhere/boat"
    assert "source.namespace" not in bag


def test_the_certificate_wins_over_the_address():
    principal = "spiffe://cluster.local/ns/open-sea/sa/pirate"
    bag = attributes(a_question(principal=principal), known())
    assert (bag["source.namespace"], bag["source.serviceAccount"]) == ("open-sea", "pirate")


def test_only_facts_of_the_destination_come_from_the_route():
    given = a_question()
    given.context_extensions["source.principal"] = "cluster.local/ns/istio-system/sa/admin"
    given.context_extensions["request.path"] = "/"
    bag = attributes(given, known())
    assert bag["source.principal"] == "cluster.local/ns/harbour/sa/storefront"
    assert bag["request.path"] == "/books/2"


def test_an_empty_question_has_answers_without_peers():
    bag = attributes(attribute_context_pb2.AttributeContext(), known())
    assert not any(key.startswith(("source.", "destination.")) for key in bag)


@pytest.mark.parametrize(
    ("code", "status"), [(3, 400), (5, 404), (7, 403), (8, 429), (9, 400), (14, 503), (16, 401)]
)
def test_a_denial_carries_status_and_words(code, status):
    answer = response(Verdict(code, "ask the harbour master"))
    assert answer.status.code == code
    assert answer.denied_response.status.code == status
    assert answer.denied_response.body == "ask the harbour master"


@pytest.mark.parametrize("code", range(1, 17))
def test_no_failure_ever_passes(code):
    answer = response(Verdict(code, "no"))
    assert answer.HasField("denied_response")
    assert 400 <= answer.denied_response.status.code < 600
    assert answer.status.code


def test_a_pass_is_ok_and_nothing_else():
    answer = response(Verdict())
    assert answer.status.code == 0
    assert not answer.HasField("denied_response")


async def ask(
    channel: grpc.aio.Channel,
    given: attribute_context_pb2.AttributeContext,
    metadata: Sequence[tuple[str, str]] = (),
) -> Any:
    stub = external_auth_pb2_grpc.AuthorizationStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
    request = external_auth_pb2.CheckRequest(attributes=given)
    return await stub.Check(request, metadata=metadata, timeout=10)


def checking(rules: RuleSet) -> Any:
    add = external_auth_pb2_grpc.add_AuthorizationServicer_to_server
    return served(add, CheckService(lambda: rules, known()))


NO = {"code": 7, "message": "ask the harbour master"}
MATCH = 'source.principal == "cluster.local/ns/harbour/sa/storefront" && request.path == "/books/2"'


async def test_one_caller_of_one_path_is_denied_over_the_wire():
    rules = compile_rules([a_denier(status=NO), an_instance(), a_rule(MATCH)])
    before = metrics.REGISTRY.get_sample_value("mixer_checks_total", {"verdict": "denied"}) or 0
    async with checking(rules) as channel:
        denied = await ask(channel, a_question())
        assert denied.denied_response.status.code == 403
        assert "ask the harbour master" in denied.denied_response.body
        assert (await ask(channel, a_question("/books/1"))).status.code == 0
        other = "spiffe://cluster.local/ns/harbour/sa/gateway"
        assert (await ask(channel, a_question(principal=other))).status.code == 0
    after = metrics.REGISTRY.get_sample_value("mixer_checks_total", {"verdict": "denied"})
    assert after == before + 1


@pytest.mark.parametrize(
    ("policy", "metadata", "code"),
    [
        ("closed", [(FAIL_POLICY_HEADER, "closed")], 7),
        ("closed", [(FAIL_POLICY_HEADER, "open")], 0),
        ("open", [(FAIL_POLICY_HEADER, "open")], 7),
        ("open", [(FAIL_POLICY_HEADER, "closed")], 0),
        ("closed", [], 7),
        ("closed", [(FAIL_POLICY_HEADER, "quay")], 7),
        ("open", [], 0),
    ],
)
async def test_a_filter_gets_the_rules_of_its_fail_policy(policy, metadata, code):
    rules = compile_rules([a_denier(status=NO), an_instance(), a_rule(policy=policy)])
    async with checking(rules) as channel:
        assert (await ask(channel, a_question(), metadata)).status.code == code


async def test_what_cannot_be_answered_is_an_error_of_the_call():
    rules = compile_rules([a_list("v1"), an_instance('source.labels["version"]'), a_rule()])
    stranger = a_question(source="10.9.9.9")
    before = metrics.REGISTRY.get_sample_value("mixer_check_errors_total") or 0
    async with checking(rules) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(channel, stranger)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "source.labels" in (caught.value.details() or "")
        assert (await ask(channel, a_question())).status.code == 0
    assert metrics.REGISTRY.get_sample_value("mixer_check_errors_total") == before + 1


async def test_new_rules_hold_for_the_next_request_of_an_open_connection():
    current = [RuleSet()]
    add = external_auth_pb2_grpc.add_AuthorizationServicer_to_server
    async with served(add, CheckService(lambda: current[0], known())) as channel:
        assert (await ask(channel, a_question())).status.code == 0
        current[0] = compile_rules([a_denier(status=NO), an_instance(), a_rule()])
        assert (await ask(channel, a_question())).status.code == 7
        current[0] = RuleSet()
        assert (await ask(channel, a_question())).status.code == 0
