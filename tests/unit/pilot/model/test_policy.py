from __future__ import annotations

from services.pilot.model.policy import EffectivePolicy, effective
from tests.unit.pilot.mesh import make
from windward.config.traffic_policy import ClientTLSMode, SimpleLB

RULE = make(
    "DestinationRule",
    "reviews",
    {
        "host": "reviews",
        "trafficPolicy": {
            "loadBalancer": {"simple": "RANDOM"},
            "connectionPool": {"tcp": {"maxConnections": 7, "connectTimeout": "2s"}},
            "tls": {"mode": "ISTIO_MUTUAL"},
            "portLevelSettings": [
                {"port": {"number": 9081}, "loadBalancer": {"simple": "ROUND_ROBIN"}}
            ],
        },
        "subsets": [
            {
                "name": "v1",
                "labels": {"version": "v1"},
                "trafficPolicy": {
                    "connectionPool": {"http": {"http1MaxPendingRequests": 3}},
                    "portLevelSettings": [{"port": {"number": 9082}, "tls": {"mode": "DISABLE"}}],
                },
            },
            {"name": "v2", "labels": {"version": "v2"}},
        ],
    },
).spec


def test_without_a_rule_nothing_is_limited():
    assert effective(None, 80, "v1") == EffectivePolicy()


def test_the_whole_destination():
    made = effective(RULE, 9080, "")
    assert made.load_balancer is SimpleLB.RANDOM
    assert (made.max_connections, made.connect_timeout_s) == (7, 2.0)
    assert made.tls is ClientTLSMode.ISTIO_MUTUAL


def test_a_port_level_entry_inherits_nothing():
    made = effective(RULE, 9081, "")
    assert made == EffectivePolicy(load_balancer=SimpleLB.ROUND_ROBIN)


def test_a_subset_overrides_section_by_section_each_whole():
    made = effective(RULE, 9080, "v1")
    assert made.max_pending_requests == 3
    assert (made.max_connections, made.connect_timeout_s) == (0, 0.0)
    assert made.load_balancer is SimpleLB.RANDOM
    assert made.tls is ClientTLSMode.ISTIO_MUTUAL


def test_a_subset_without_a_policy_has_the_destinations():
    assert effective(RULE, 9080, "v2") == effective(RULE, 9080, "")
    assert effective(RULE, 9080, "unknown") == effective(RULE, 9080, "")


def test_a_subsets_port_level_entry():
    assert effective(RULE, 9082, "v1").tls is ClientTLSMode.DISABLE
