from __future__ import annotations

import itertools
from typing import Any

import pytest

from services.mixer.adapters.checks import PERMISSION_DENIED, Verdict
from services.mixer.runtime.rules import RuleSet, compile_rules
from tests.unit.mixer.objects import a_denier, a_list, a_rule, an_instance, left_behind
from windward.expression.compiled import AbsentError, EvaluationError
from windward.identity.names import ROOT_NAMESPACE

BAG = {
    "request.path": "/books/2",
    "request.headers": {"version": "v9"},
    "destination.service.namespace": "harbour",
}
NO: dict[str, Any] = {"status": {"code": 7, "message": "no"}}


def a_guard(match: str = "", policy: str = "closed") -> RuleSet:
    return compile_rules([a_denier(**NO), an_instance(), a_rule(match, policy=policy)])


def test_without_rules_everything_passes():
    assert RuleSet().check(BAG, opens=False) == Verdict()
    assert compile_rules([]) == RuleSet()


def test_a_rule_without_a_match_is_for_every_request():
    verdict = a_guard().check({}, opens=False)
    assert verdict.code == PERMISSION_DENIED
    assert verdict.message.endswith(":no")


def test_the_words_name_the_handler_in_full():
    assert a_guard().check(BAG, opens=False).message == f"guard.handler.{ROOT_NAMESPACE}:no"


@pytest.mark.parametrize(
    ("match", "code"),
    [
        ('request.path == "/books/2"', 7),
        ('request.path == "/books/1"', 0),
        ('request.path.startsWith("/books")', 7),
        ("  ", 7),
        ("false", 0),
    ],
)
def test_a_rule_is_for_what_it_matches(match, code):
    assert a_guard(match).check(BAG, opens=False).code == code


@pytest.mark.parametrize("match", ['source.principal == "a"', 'ip(request.path) == ip("1.2.3.4")'])
def test_a_match_that_cannot_be_evaluated_is_not_a_denial(match):
    rules = a_guard(match)
    assert not rules.problems
    assert rules.check(BAG, opens=False) == Verdict()


@pytest.mark.parametrize(("policy", "opens"), [("closed", False), ("open", True)])
def test_each_filter_asks_for_its_own_rules(policy, opens):
    rules = a_guard(policy=policy)
    assert rules.check(BAG, opens=opens).code == PERMISSION_DENIED
    assert rules.check(BAG, opens=not opens) == Verdict()


@pytest.mark.parametrize(
    ("bag", "code"),
    [
        ({"destination.service.namespace": "harbour"}, 7),
        ({"destination.namespace": "harbour"}, 7),
        ({"destination.service.namespace": "open-sea"}, 0),
        ({}, 0),
    ],
)
def test_a_namespace_rules_only_its_own_services(bag, code):
    rules = compile_rules(
        [
            a_denier(namespace="harbour", **NO),
            an_instance(namespace="harbour"),
            a_rule(namespace="harbour"),
        ]
    )
    assert rules.check(bag, opens=False).code == code


def test_the_root_namespace_speaks_first_whatever_the_order_of_objects():
    objects = [
        a_denier(namespace="harbour", status={"code": 16, "message": "mine"}),
        an_instance(namespace="harbour"),
        a_rule(name="a", namespace="harbour"),
        a_denier(**NO),
        an_instance(),
        a_rule(name="z"),
    ]
    for order in itertools.permutations(objects):
        rules = compile_rules(order)
        assert [rule.namespace for rule in rules.rules] == [ROOT_NAMESPACE, "harbour"]
        assert rules.check(BAG, opens=False).code == PERMISSION_DENIED


def test_a_later_rule_is_asked_when_an_earlier_one_passes():
    rules = compile_rules(
        [
            a_list("v9", name="versions"),
            a_denier(**NO),
            an_instance('request.headers["version"]', name="version"),
            an_instance(),
            a_rule(name="a", handler="versions", instances=("version",)),
            a_rule(name="b"),
        ]
    )
    assert rules.check(BAG, opens=False).message.endswith(":no")


@pytest.mark.parametrize(
    ("value", "code"), [('request.headers["version"]', 0), ("request.path", 7), ('"v9"', 0)]
)
def test_a_list_is_asked_about_the_instances_value(value, code):
    rules = compile_rules([a_list("v9"), an_instance(value), a_rule()])
    assert rules.check(BAG, opens=False).code == code


def test_every_instance_of_an_action_is_asked():
    rules = compile_rules(
        [
            a_list("v9"),
            an_instance('"v9"', name="first"),
            an_instance("request.path", name="second"),
            a_rule(instances=("first", "second")),
        ]
    )
    assert "/books/2 is not whitelisted" in rules.check(BAG, opens=False).message


def test_an_instance_that_cannot_be_built_is_the_fail_policys_to_decide():
    rules = compile_rules([a_list("v9"), an_instance('source.labels["version"]'), a_rule()])
    with pytest.raises(AbsentError):
        rules.check(BAG, opens=False)
    rules = compile_rules([a_list("v9"), an_instance("ip(request.path)"), a_rule()])
    with pytest.raises(EvaluationError):
        rules.check(BAG, opens=False)
    assert rules.check(BAG, opens=True) == Verdict()


@pytest.mark.parametrize(
    ("handler", "instance"),
    [
        ("guard.harbour", "what.harbour"),
        ("guard.handler.harbour", "what.instance.harbour"),
        ("guard", "what.harbour"),
    ],
)
def test_names_reach_into_other_namespaces_when_written_out(handler, instance):
    rules = compile_rules(
        [
            a_denier(namespace="harbour", **NO),
            a_denier(**NO),
            an_instance(namespace="harbour"),
            a_rule(handler=handler, instances=(instance,)),
        ]
    )
    assert not rules.problems
    assert rules.check(BAG, opens=False).code == PERMISSION_DENIED


def test_a_short_name_does_not_leave_the_rules_namespace():
    rules = compile_rules([a_denier(**NO), an_instance(), a_rule(namespace="harbour")])
    assert rules.rules == ()
    assert rules.problems == ("rule/harbour/rule: there is no handler harbour/guard",)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (left_behind(a_rule(name="broken"), match="request.path"), "must be BOOL, is STRING"),
        (
            left_behind(a_rule(name="broken"), match="request.quay == 1"),
            "unknown attribute request.quay",
        ),
        (left_behind(a_rule(name="broken"), match="a =="), "unexpected end at position 5"),
        (a_rule(name="broken", handler="nobody"), f"there is no handler {ROOT_NAMESPACE}/nobody"),
        (a_rule(name="broken", instances=("none",)), f"there is no instance {ROOT_NAMESPACE}/none"),
    ],
)
def test_a_broken_rule_is_left_out_and_told_and_the_rest_is_in_force(broken, words):
    rules = compile_rules([a_denier(**NO), an_instance(), broken, a_rule(name="good")])
    assert [rule.name for rule in rules.rules] == ["good"]
    assert len(rules.problems) == 1
    assert f"rule/{ROOT_NAMESPACE}/broken" in rules.problems[0]
    assert words in rules.problems[0]
    assert rules.check(BAG, opens=False).code == PERMISSION_DENIED


def test_a_broken_instance_breaks_the_rules_that_use_it_only():
    rules = compile_rules(
        [
            a_list("v9"),
            left_behind(
                an_instance("request.path", name="broken"), params={"value": "request.quay"}
            ),
            an_instance("request.path"),
            a_rule(name="a", instances=("broken",)),
            a_rule(name="b"),
        ]
    )
    assert [rule.name for rule in rules.rules] == ["b"]
    assert "request.quay" in rules.problems[0]


def test_compiling_does_not_depend_on_order():
    objects = [a_denier(**NO), an_instance(), a_rule(name="a"), a_rule(name="b", policy="open")]
    names = {
        tuple(rule.name for rule in compile_rules(order).rules)
        for order in itertools.permutations(objects)
    }
    assert names == {("a", "b")}
