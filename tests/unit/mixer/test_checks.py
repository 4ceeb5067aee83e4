"""Adapters and rules: verdicts, fail policies, broken rules left out."""

from __future__ import annotations

from typing import Any

from services.mixer.adapters.checks import denier, list_checker
from services.mixer.runtime.rules import compile_rules
from windward.config.decode import decode_object
from windward.config.mixer_rule import DenierParams, ListEntryType, ListParams, Status


def thing(kind: str, name: str, spec: dict[str, Any], **annotations: str) -> Any:
    raw = {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": spec,
    }
    made, findings = decode_object(raw)
    assert made is not None, findings
    return made


def rule(name: str, match: str, *, policy: str = "closed") -> Any:
    spec = {"match": match, "actions": [{"handler": "no", "instances": ["ask"]}]}
    return thing("rule", name, spec, **{"windward.io/fail-policy": policy})


HANDLER = thing(
    "handler",
    "no",
    {"compiledAdapter": "denier", "params": {"status": {"code": 7, "message": "no"}}},
)
INSTANCE = thing("instance", "ask", {"compiledTemplate": "checknothing"})
BAG = {"request.path": "/a", "destination.service.namespace": "shop"}


def test_a_denier_denies_with_its_status_and_words():
    verdict = denier(DenierParams(status=Status(code=16, message="log in")))(None)
    assert (verdict.code, verdict.message) == (16, "log in")


def test_lists():
    white = list_checker(ListParams(overrides=("a", "b")))
    assert white("a").code == 0
    assert white("c").message == "c is not whitelisted"
    black = list_checker(
        ListParams(
            overrides=("Ada",), entry_type=ListEntryType.CASE_INSENSITIVE_STRINGS, blacklist=True
        )
    )
    assert black("ADA").message == "ADA is blacklisted"
    assert black("bob").code == 0
    addresses = list_checker(
        ListParams(overrides=("10.0.0.0/8",), entry_type=ListEntryType.IP_ADDRESSES)
    )
    assert addresses("10.1.2.3").code == 0
    assert addresses("11.1.2.3").code == 7
    assert addresses("nonsense").code == 3


def test_a_rule_denies_what_it_matches_under_its_own_fail_policy():
    rules = compile_rules([HANDLER, INSTANCE, rule("r", 'request.path == "/a"', policy="open")])
    assert rules.check(BAG, opens=True).code == 7
    assert rules.check(BAG, opens=False).code == 0
    assert rules.check({**BAG, "request.path": "/b"}, opens=True).code == 0


def test_a_rule_of_another_namespace_does_not_apply():
    rules = compile_rules([HANDLER, INSTANCE, rule("r", "")])
    assert rules.check(BAG, opens=False).code == 7
    assert rules.check({**BAG, "destination.service.namespace": "elsewhere"}, opens=False).code == 0


def test_a_match_that_cannot_be_evaluated_is_no_denial():
    rules = compile_rules([HANDLER, INSTANCE, rule("r", 'source.name == "x"')])
    assert rules.check(BAG, opens=False).code == 0


def test_a_broken_rule_is_left_out_and_told_and_hurts_no_other():
    rules = compile_rules([HANDLER, INSTANCE, rule("bad", "request.path =="), rule("good", "")])
    assert [item.name for item in rules.rules] == ["good"]
    assert rules.problems[0].startswith("rule/shop/bad: unexpected end")
