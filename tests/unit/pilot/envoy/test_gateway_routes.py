"""Virtual hosts of gateways: who claims which host, and what is made again when something changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.pilot.envoy.gateway_routes import GATEWAYS, bound, claims, destination_hosts
from services.pilot.envoy.memo import Memo
from services.pilot.envoy.own import concerns, own_resources
from services.pilot.envoy.route import http_routes
from services.pilot.snapshot import Delta
from tests.unit.pilot.envoy.test_gateway import HELD, gateway, server
from tests.unit.pilot.mesh import OPTIONS, REVIEWS, make, port, router, service_entry, snap
from windward.identity.spiffe_id import workload_id
from windward.xds import resource as xds


def rule(name, *hosts, gateways=("edge",), born=0, to="reviews", namespace="shop", number=None):
    destination = {"host": to} | ({"port": {"number": number}} if number else {})
    spec = {
        "hosts": list(hosts),
        "gateways": list(gateways),
        "http": [{"route": [{"destination": destination}]}],
    }
    return make("VirtualService", name, spec, namespace=namespace, born=born)


def claimed(rules, *servers, **of):
    edge = gateway(*servers, **of)
    found = claims([(edge, item) for item in edge.spec.servers], bound(rules))
    return {host: [item.key.name for item, _ in who] for host, who in found.items()}


def test_hosts_are_claimed_by_those_who_name_the_gateway_the_oldest_first():
    rules = [
        rule("a", "a.com", "both.com"),
        rule("b", "both.com"),
        rule("other", "a.com", gateways=["other"]),
        rule("far", "both.com", gateways=["shop/edge"], namespace="far"),
    ]
    assert claimed(rules, server("a.com", "both.com")) == {
        "a.com": ["a"],
        "both.com": ["a", "b", "far"],
    }


def test_wildcards_of_either_side_meet_in_the_narrower_host():
    rules = [rule("exact", "x.example.com"), rule("wide", "*.example.com"), rule("all", "*")]
    assert claimed(rules, server("*.example.com")) == {
        "x.example.com": ["exact"],
        "*.example.com": ["wide", "all"],
    }
    assert claimed(rules, server("x.example.com")) == {"x.example.com": ["exact", "wide", "all"]}
    assert claimed(rules, server("*")) == {
        "x.example.com": ["exact"],
        "*.example.com": ["wide"],
        "*": ["all"],
    }


def test_a_host_of_two_servers_and_of_two_cases_is_served_once():
    rules = [rule("a", "a.com", "A.com")]
    twice = [server("*", name="one"), server("*.com", name="two")]
    assert claimed(rules, *twice) == {"a.com": ["a"]}


def test_destinations_are_what_routes_send_to():
    assert destination_hosts([rule("a", "a.com"), rule("b", "b.com", to="x.example.com")]) == {
        REVIEWS,
        "x.example.com",
    }


def a_mesh(*rules):
    objects = [service_entry(), service_entry("ratings"), gateway(server("*")), *rules]
    return replace(snap(*objects), credentials={("shop", "cert"): HELD})


def test_a_service_that_nobody_routes_to_is_not_the_gateways_concern():
    mesh = a_mesh(rule("a", "a.com"))
    assert mesh.gateway_destinations == {REVIEWS}
    assert not concerns(Delta(services=frozenset({"other.example.com"})), mesh, router())
    assert concerns(Delta(services=frozenset({REVIEWS})), mesh, router())


def test_of_many_hosts_only_those_of_what_changed_are_made_again():
    memo = Memo()
    rules = [rule(f"v{number}", f"h{number}.com") for number in range(20)]
    own_resources(a_mesh(*rules), router(), OPTIONS, memo=memo)
    built = memo.built
    own_resources(a_mesh(*rules), router(), OPTIONS, memo=memo)
    # The objects were read anew, but are equal.
    assert memo.built == built
    changed = [rule("v0", "h0.com", to="ratings"), *rules[1:]]
    made = own_resources(a_mesh(*changed), router(), OPTIONS, memo=memo)
    assert memo.built == built + 2, "the index of the rules, and one host"
    assert made == own_resources(a_mesh(*changed), router(), OPTIONS)


def test_a_host_is_made_again_when_the_port_of_its_service_is_another_one():
    memo = Memo()

    def cluster(number):
        objects = [service_entry(ports=[port(number)]), gateway(server("*")), rule("a", "a.com")]
        mesh = replace(snap(*objects), credentials={("shop", "cert"): HELD})
        made = own_resources(mesh, router(), OPTIONS, memo=memo)
        [found] = [item for item in made if item.type_url == xds.ROUTE]
        return found.body

    assert f"outbound|9080||{REVIEWS}".encode() in cluster(9080)
    assert f"outbound|9999||{REVIEWS}".encode() in cluster(9999)


def test_what_cannot_be_built_is_told_every_time_and_the_rest_is_there(monkeypatch):
    memo, bad, good = Memo(), rule("bad", "a.com", "b.com"), rule("good", "a.com", "c.com")
    told: list[str] = []

    def routes(http, context):
        if http is bad.spec.http:
            raise ValueError("not so")
        return http_routes(http, context)

    monkeypatch.setattr("services.pilot.envoy.gateway_routes.http_routes", routes)

    def failed(origins, error):
        told.append(f"{origins[0].name}: {error}")

    for times in (1, 2):
        made = own_resources(a_mesh(bad, good), router(), OPTIONS, failed, memo)
        assert told == ["bad: not so"] * times
        [found] = [item for item in made if item.type_url == xds.ROUTE]
        assert b"a.com:443" in found.body
        assert b"c.com:443" in found.body
        assert b"b.com:443" not in found.body
        assert [origin.name for origin in found.origins] == ["edge", "good", "good"]


@pytest.mark.parametrize("account", ["gateway", "thief"])
def test_a_memo_gives_a_gateways_secrets_to_nobody_who_may_not_have_them(account):
    memo, mesh = Memo(), a_mesh(rule("a", "a.com"))
    mine = own_resources(mesh, router(), OPTIONS, memo=memo)
    assert [item.name for item in mine if item.type_url == xds.SECRET] == ["kubernetes://cert"]
    alike = router(namespace="evil")
    alike = replace(
        alike, service_account=account, identity=workload_id("cluster.local", "evil", account)
    )
    theirs = own_resources(mesh, alike, OPTIONS, memo=memo)
    assert not [item for item in theirs if item.type_url == xds.SECRET]
    memo.keep_used(GATEWAYS)
    assert own_resources(mesh, router(), OPTIONS, memo=memo) == mine
