from __future__ import annotations

from dataclasses import replace

from services.pilot.envoy.virtual_host import aliases
from tests.unit.pilot.mesh import (
    OPTIONS,
    REVIEWS,
    direct,
    generate,
    host,
    make,
    port,
    router,
    routes,
    service_entry,
    sidecar,
    snap,
)
from windward.xds import resource as xds

RATINGS = "ratings.shop.svc.cluster.local"


def virtual_service(name="reviews", subset="v1", **changes):
    namespace, born = changes.pop("namespace", "shop"), changes.pop("born", 0)
    http = [{"route": [{"destination": {"host": REVIEWS, "subset": subset}}]}]
    spec = {"hosts": ["reviews"], "http": http, **changes}
    return make("VirtualService", name, spec, namespace=namespace, born=born)


def gateway(*hosts, name="edge", number=80, namespace="shop"):
    server = {"port": {"number": number, "name": "http", "protocol": "HTTP"}, "hosts": list(hosts)}
    spec = {"selector": {"istio": "ingress"}, "servers": [server]}
    return make("Gateway", name, spec, namespace=namespace)


def target(made, config="9080", name=f"{REVIEWS}:9080"):
    return host(made, config, name).routes[0].route.cluster


def names_of(made, config):
    return [item.name for item in routes(made, config).virtual_hosts]


def test_the_shorter_forms_of_a_host():
    assert aliases(REVIEWS, "shop") == ["reviews.shop.svc", "reviews.shop", "reviews"]
    assert aliases(REVIEWS, "other") == ["reviews.shop.svc", "reviews.shop"]
    assert aliases("api.example.com", "shop") == []


def test_a_service_without_rules():
    made = generate(snap(service_entry(addresses=["10.0.0.1"])), sidecar())
    found = host(made, "9080", f"{REVIEWS}:9080")
    assert "reviews" in found.domains
    assert "reviews:9080" in found.domains
    assert "10.0.0.1" in found.domains
    (default,) = found.routes
    assert default.name == "default"
    assert default.route.cluster == f"outbound|9080||{REVIEWS}"
    assert default.route.timeout.ToMilliseconds() == 0
    assert default.route.retry_policy.num_retries.value == 2
    assert found.include_request_attempt_count


def test_a_route_configuration_a_port():
    made = generate(
        snap(service_entry(ports=[port(80), port(81, name="b"), port(82, "TCP", "c")])), sidecar()
    )
    assert set(made[xds.ROUTE]) == {"80", "81"}


def test_the_oldest_virtual_service_wins_and_the_most_specific_host_before_it():
    older = virtual_service("a", "old", born=1)
    newer = virtual_service("b", "new", born=2)
    wide = virtual_service("c", "wide", hosts=["*.shop.svc.cluster.local"], born=0)
    assert (
        target(generate(snap(service_entry(), newer, older, wide), sidecar()))
        == f"outbound|9080|old|{REVIEWS}"
    )
    assert (
        target(generate(snap(service_entry(), wide), sidecar())) == f"outbound|9080|wide|{REVIEWS}"
    )


def test_rules_that_are_not_for_this_proxy():
    gate = virtual_service("a", "x", hosts=[REVIEWS], gateways=["edge"])
    hidden = virtual_service("b", "y", exportTo=["."], hosts=[REVIEWS])
    straight = f"outbound|9080||{REVIEWS}"
    assert target(generate(snap(service_entry(), gate), sidecar())) == straight
    assert target(generate(snap(service_entry(), hidden), sidecar(namespace="other"))) == straight


def test_unknown_hosts_pass_or_are_refused():
    passing = generate(snap(service_entry()), sidecar())
    assert names_of(passing, "9080")[-1] == "allow_any"
    assert host(passing, "9080", "allow_any").routes[0].route.cluster == "PassthroughCluster"
    refusing = generate(snap(service_entry()), sidecar(), replace(OPTIONS, allow_any=False))
    assert host(refusing, "9080", "block_all").routes[0].direct_response.status == 502


def test_the_http_proxy_of_loopback_mode_knows_every_port_and_nothing_else():
    made = generate(snap(service_entry(), service_entry("ratings", ports=[port(80)])), direct())
    assert names_of(made, "http_proxy") == [f"{RATINGS}:80", f"{REVIEWS}:9080", "block_all"]
    assert "reviews" not in host(made, "http_proxy", f"{REVIEWS}:9080").domains
    assert "reviews:9080" in host(made, "http_proxy", f"{REVIEWS}:9080").domains
    assert "ratings" in host(made, "http_proxy", f"{RATINGS}:80").domains


def test_a_domain_belongs_to_one_virtual_host():
    shared = [
        service_entry(name, hosts=[f"{name}.example.com"], addresses=["10.0.0.1"])
        for name in ("a", "b")
    ]
    made = routes(generate(snap(*shared), sidecar()), "9080")
    domains = [domain for item in made.virtual_hosts for domain in item.domains]
    assert len(domains) == len(set(domains))
    assert "10.0.0.1" in made.virtual_hosts[0].domains


def test_what_is_not_exported_is_not_there():
    made = generate(snap(service_entry(exportTo=["."])), sidecar(namespace="other"))
    assert not made[xds.ROUTE]
    assert not made[xds.ENDPOINT]


def test_a_gateway_serves_the_hosts_that_it_and_a_virtual_service_name():
    rule = virtual_service("a", hosts=["shop.example.com", "other.example.com"], gateways=["edge"])
    made = generate(snap(service_entry(), gateway("shop.example.com"), rule), router())
    assert names_of(made, "http.80") == ["shop.example.com:80"]
    found = host(made, "http.80", "shop.example.com:80")
    assert list(found.domains) == ["shop.example.com", "shop.example.com:80"]
    assert found.routes[0].route.cluster == f"outbound|9080|v1|{REVIEWS}"


def test_a_gateway_merges_oldest_first_and_catch_alls_last():
    def http(subset, uri=None):
        route = {"route": [{"destination": {"host": "reviews", "subset": subset}}]}
        return {**route, "match": [{"uri": {"prefix": uri}}]} if uri else route

    common = {"hosts": ["shop.example.com"], "gateways": ["edge"]}
    older = make("VirtualService", "z", {**common, "http": [http("all")]}, born=0)
    newer = make(
        "VirtualService", "a", {**common, "http": [http("one", "/1"), http("two", "/2")]}, born=1
    )
    made = generate(snap(service_entry(), gateway("*"), newer, older), router())
    found = host(made, "http.80", "shop.example.com:80")
    assert [item.route.cluster.split("|")[2] for item in found.routes] == ["one", "two", "all"]


def test_a_gateways_host_may_be_for_one_namespace_only():
    gate = gateway("shop/*.example.com", name="edge", namespace="infra")
    common = {"gateways": ["infra/edge"]}
    mine = virtual_service("a", hosts=["a.example.com"], **common)
    other = virtual_service("b", hosts=["b.example.com"], namespace="evil", **common)
    made = generate(snap(service_entry(), gate, mine, other), router())
    assert names_of(made, "http.80") == ["a.example.com:80"]


def test_a_gateway_without_routes_knows_no_host():
    made = generate(snap(service_entry(), gateway("*")), router())
    assert not routes(made, "http.80").virtual_hosts


def test_a_gateway_that_selects_others_is_not_served():
    made = generate(snap(service_entry(), gateway("*")), replace(router(), labels=()))
    assert not made[xds.LISTENER]
