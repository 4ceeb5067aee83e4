from __future__ import annotations

from dataclasses import replace

from services.pilot.state import MeshState
from services.pilot.taken_back import TakenBack
from tests.unit.pilot.mesh import REVIEWS, change, make, port, service_entry


def a_rule(connections):
    pool = {"connectionPool": {"tcp": {"maxConnections": connections}}}
    return make("DestinationRule", "r", {"host": "reviews", "trafficPolicy": pool})


def in_force(state):
    return [
        item.spec.traffic_policy.connection_pool.tcp.max_connections
        for item in state.snapshot.rules.candidates(REVIEWS)
    ]


def refuse(state, *items):
    return state.apply({}, {}, 9, {item.key: item for item in items})


def test_of_two_bad_ones_in_a_row_the_good_one_before_both_comes_back_and_the_last_is_tried_again():
    state = MeshState()
    change(state, service_entry(), a_rule(1))
    change(state, a_rule(2))
    change(state, a_rule(3))
    refuse(state, a_rule(3))
    assert in_force(state) == [2]
    refuse(state, a_rule(2))
    assert in_force(state) == [1]
    assert not change(state, a_rule(3)), "it is the refused one still"
    change(state, service_entry(ports=[port(9999)]))
    assert in_force(state) == [3]
    assert state.put_again == (a_rule(3).key,)
    change(state, service_entry(ports=[port(9998)]))
    assert not state.put_again


def test_a_service_is_taken_back_with_all_that_it_claims():
    state = MeshState()
    change(state, service_entry())
    change(state, service_entry(hosts=["odd.example.com"]))
    assert set(state.snapshot.services) == {"odd.example.com"}
    assert refuse(state, service_entry(hosts=["odd.example.com"])).services == {
        "odd.example.com",
        REVIEWS,
    }
    assert set(state.snapshot.services) == {REVIEWS}


def test_gateways_and_policies_are_taken_back_too():
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    gateway = make("Gateway", "edge", {"selector": {"istio": "ingress"}, "servers": [server]})
    strict = make("PeerAuthentication", "default", {"mtls": {"mode": "STRICT"}})
    state = MeshState()
    change(state, gateway, strict)
    delta = refuse(state, gateway, strict)
    assert (delta.gateways, delta.peers) == (True, True)
    assert not state.snapshot.gateways
    assert not state.snapshot.peer_authentications
    assert not refuse(state, gateway, strict)


def test_what_is_gone_has_nothing_before_it():
    taken, item = TakenBack(), a_rule(1)
    taken.replaced(item.key, item, a_rule(2))
    taken.replaced(item.key, a_rule(2), None)
    taken.replaced(item.key, None, a_rule(3))
    kind = {item.key: a_rule(3)}
    assert taken.take_back(kind, a_rule(3)) == [(a_rule(3), None)]
    assert kind == {}


def test_what_is_not_in_force_is_not_taken_back():
    taken, item = TakenBack(), a_rule(1)
    kind = {item.key: a_rule(2)}
    assert taken.take_back(kind, replace(item, spec=a_rule(5).spec)) == []
    assert kind == {item.key: a_rule(2)}
