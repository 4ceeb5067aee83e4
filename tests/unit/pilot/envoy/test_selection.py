from __future__ import annotations

import pytest

from services.pilot.envoy.selection import destination_rule, mesh_virtual_service, peer_modes
from services.pilot.registry.mesh import age_order
from tests.unit.pilot.mesh import REVIEWS, make
from windward.config.peer_authentication import MutualTLSMode

ROOT = "istio-system"


def rule(name, namespace, host=REVIEWS, subset="v1", **changes):
    born = changes.pop("born", 0)
    spec = {"host": host, "subsets": [{"name": subset, "labels": {"version": name}}], **changes}
    return make("DestinationRule", name, spec, namespace=namespace, born=born)


def found(*rules, proxy="caller"):
    ordered = sorted(rules, key=age_order)
    made = destination_rule(ordered, REVIEWS, "shop", proxy)
    return [origin.name for origin in made.origins] if made else None


def test_the_callers_namespace_then_the_services_then_the_root():
    mine, theirs, root = rule("a", "caller"), rule("b", "shop"), rule("c", ROOT)
    assert found(mine, theirs, root) == ["a"]
    assert found(theirs, root) == ["b"]
    assert found(root) == ["c"]
    assert found(rule("d", "elsewhere")) is None


def test_a_wide_rule_of_a_nearer_level_wins_over_an_exact_one_of_a_further():
    assert found(rule("a", "caller", host="*.cluster.local"), rule("b", "shop")) == ["a"]


def test_the_most_specific_host_of_a_level():
    wide, wider = rule("a", "shop", host="*.shop.svc.cluster.local"), rule("b", "shop", host="*")
    assert found(wide, wider) == ["a"]
    assert found(wide, wider, rule("c", "shop")) == ["c"]


def test_what_is_not_exported_is_the_namespaces_own():
    hidden = rule("a", "shop", exportTo=["."])
    assert found(hidden) is None
    assert found(hidden, proxy="shop") == ["a"]
    assert found(rule("b", "shop", exportTo=["caller"])) == ["b"]


def test_rules_of_one_host_and_namespace_are_one():
    policy = {"loadBalancer": {"simple": "RANDOM"}}
    older = rule("z", "shop", subset="v1", born=0)
    newer = rule("a", "shop", subset="v1", born=1, trafficPolicy=policy)
    other = rule("b", "shop", subset="v2", born=2)
    made = destination_rule([older, newer, other], REVIEWS, "shop", "shop")
    assert made is not None
    assert [(item.name, item.labels["version"]) for item in made.spec.subsets] == [
        ("v1", "z"),
        ("v2", "b"),
    ]
    assert made.spec.traffic_policy == newer.spec.traffic_policy
    assert [origin.name for origin in made.origins] == ["z", "a", "b"]


def test_short_hosts_are_of_the_rules_namespace():
    assert found(rule("a", "shop", host="reviews")) == ["a"]
    assert found(rule("b", "caller", host="reviews")) is None


def test_virtual_services_of_the_mesh():
    def item(name, born=0, **changes):
        http = [{"route": [{"destination": {"host": REVIEWS}}]}]
        spec = {"hosts": [REVIEWS], "http": http, **changes}
        return make("VirtualService", name, spec, born=born)

    def chosen(*items, namespace="shop"):
        ordered = sorted(items, key=age_order)
        made = mesh_virtual_service(ordered, REVIEWS, namespace)
        return made.key.name if made else None

    assert chosen(item("b", 0), item("a", 1)) == "b"
    assert chosen(item("a", 0, hosts=["*.cluster.local"]), item("b", 1)) == "b"
    assert chosen(item("a", gateways=["edge"])) is None
    assert chosen(item("a", gateways=["edge", "mesh"])) == "a"
    assert chosen(item("a", exportTo=["."]), namespace="other") is None


def peers(name, mode=None, *, namespace="shop", selector=None, ports=None, born=0):
    spec = {}
    if mode:
        spec["mtls"] = {"mode": mode}
    if selector:
        spec["selector"] = {"matchLabels": selector}
    if ports:
        spec["portLevelMtls"] = {str(number): {"mode": value} for number, value in ports.items()}
    return make("PeerAuthentication", name, spec, namespace=namespace, born=born)


APP = {"app": "reviews"}


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([], "PERMISSIVE"),
        ([peers("a", "STRICT", namespace=ROOT)], "STRICT"),
        ([peers("a", "STRICT", namespace=ROOT), peers("b", "DISABLE")], "DISABLE"),
        ([peers("a", "STRICT"), peers("b", "PERMISSIVE", selector=APP)], "PERMISSIVE"),
        ([peers("a", "STRICT"), peers("b", "UNSET", selector=APP)], "STRICT"),
        ([peers("a", "STRICT", namespace=ROOT), peers("b")], "STRICT"),
        ([peers("b", "STRICT", born=0), peers("a", "DISABLE", born=1)], "STRICT"),
        ([peers("a", "STRICT", namespace="other")], "PERMISSIVE"),
        ([peers("a", "STRICT", selector={"app": "other"})], "PERMISSIVE"),
        ([peers("a", "STRICT", namespace=ROOT, selector=APP)], "PERMISSIVE"),
    ],
)
def test_the_narrowest_policy_wins(policies, expected):
    made = peer_modes(sorted(policies, key=age_order), "shop", APP)
    assert made.default is MutualTLSMode[expected]
    assert made.of(1234) is MutualTLSMode[expected]


def test_only_the_policies_that_decide_are_the_origins_of_what_is_decided():
    """Not those of other namespaces and workloads, nor the younger ones of one scope."""
    policies = [
        peers("mesh", "STRICT", namespace=ROOT),
        peers("old", "DISABLE", born=0),
        peers("young", "STRICT", born=1),
        peers("elsewhere", "STRICT", namespace="other"),
        peers("others", "STRICT", selector={"app": "other"}),
        peers("own", selector=APP),
    ]
    made = peer_modes(sorted(policies, key=age_order), "shop", APP)
    assert [item.key.name for item in made.deciding] == ["mesh", "old", "own"]


def test_ports_are_read_from_the_workloads_own_policy_only():
    own = peers("a", "STRICT", selector=APP, ports={80: "DISABLE", 81: "UNSET"})
    made = peer_modes([own], "shop", APP)
    assert [made.of(number) for number in (80, 81, 82)] == [
        MutualTLSMode.DISABLE,
        MutualTLSMode.STRICT,
        MutualTLSMode.STRICT,
    ]
