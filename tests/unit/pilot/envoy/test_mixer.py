from __future__ import annotations

import pytest
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2

from tests.unit.pilot.mesh import WITH_MIXER, extension, generate, make, sidecar, snap
from windward.xds import resource as xds

CLOSED, OPEN = "windward.mixer.check.closed", "windward.mixer.check.open"
HANDLER = make("handler", "deny", {"compiledAdapter": "denier", "params": {"status": {"code": 7}}})
INSTANCE = make("instance", "nothing", {"compiledTemplate": "checknothing"})


def rule(name="r", policy=None):
    annotations = {"windward.io/fail-policy": policy} if policy else {}
    actions = [{"handler": "deny", "instances": ["nothing"]}]
    return make("rule", name, {"match": "true", "actions": actions}, annotations=annotations)


def filters(*rules):
    made = generate(snap(HANDLER, INSTANCE, *rules), sidecar(), WITH_MIXER)
    found = {}
    for name in (CLOSED, OPEN):
        filter_ = ext_authz_pb2.ExtAuthz()
        assert extension(made, name).typed_config.Unpack(filter_)
        found[name] = filter_
    return found


def shares(*rules):
    made = filters(*rules)
    return tuple(made[name].filter_enabled.default_value.numerator for name in (CLOSED, OPEN))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), (0, 0)),
        ((rule(),), (100, 0)),
        ((rule(policy="closed"),), (100, 0)),
        ((rule(policy="open"),), (0, 100)),
        ((rule("a", "open"), rule("b")), (100, 100)),
    ],
)
def test_a_filter_asks_only_where_a_rule_of_its_kind_exists(rules, expected):
    assert shares(*rules) == expected


def test_what_happens_without_mixer_is_the_filters_kind():
    made = filters(rule())
    for name, allowed, word in ((CLOSED, False, "closed"), (OPEN, True, "open")):
        assert made[name].failure_mode_allow is allowed
        (header,) = made[name].grpc_service.initial_metadata
        assert (header.key, header.value) == ("x-windward-fail-policy", word)
        assert made[name].grpc_service.timeout.ToMilliseconds() == 500
        assert made[name].bootstrap_metadata_labels_key == "LABELS"
        assert not made[name].include_peer_certificate


def test_a_rule_changes_its_filter_and_no_listener():
    without = generate(snap(HANDLER, INSTANCE), sidecar(), WITH_MIXER)
    with_rule = generate(snap(HANDLER, INSTANCE, rule()), sidecar(), WITH_MIXER)
    changed = [
        (type_url, name)
        for type_url, named in with_rule.items()
        for name, item in named.items()
        if without[type_url].get(name) != item
    ]
    assert changed == [(xds.EXTENSION, CLOSED)]


def test_without_mixer_there_is_no_filter():
    assert not generate(snap(HANDLER, INSTANCE, rule()), sidecar())[xds.EXTENSION]
