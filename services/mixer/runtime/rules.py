"""Rules resolved: handlers built, instances and matches compiled. What is broken is left out and told, never fatal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.mixer.adapters.checks import Check, Verdict, denier, list_checker
from windward.config.mixer_rule import (
    ADAPTERS,
    TEMPLATES,
    DenierParams,
    ListEntryParams,
    ListParams,
    fails_open,
    qualified,
    typed_params,
)
from windward.config.object import ConfigObject
from windward.config.report import Report
from windward.config.walk import BAD
from windward.expression.compiled import (
    AbsentError,
    Bag,
    EvaluationError,
    Expression,
    compile_expression,
)
from windward.expression.syntax import ExpressionError
from windward.expression.vocabulary import ValueType
from windward.identity.names import ROOT_NAMESPACE


@dataclass(frozen=True, slots=True)
class BoundCheck:
    handler: str
    check: Check
    value: Expression | None
    """None for checknothing."""


@dataclass(frozen=True, slots=True)
class CompiledRule:
    name: str
    namespace: str
    opens: bool
    match: Expression | None
    """None: every request."""
    checks: tuple[BoundCheck, ...]

    def applies(self, bag: Bag) -> bool:
        """A match that cannot be evaluated does not apply; it is never a denial."""
        if self.match is None:
            return True
        try:
            return bool(self.match.evaluate(bag))
        except (AbsentError, EvaluationError):
            return False


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Immutable: replaced whole when configuration changes."""

    rules: tuple[CompiledRule, ...] = ()
    problems: tuple[str, ...] = ()

    def check(self, bag: Bag, *, opens: bool) -> Verdict:
        """The first failure among the rules of one fail policy; rules of the root namespace come first.

        Raises AbsentError or EvaluationError when an instance cannot be built: the caller's fail policy decides.
        """
        namespace = (
            bag.get("destination.service.namespace") or bag.get("destination.namespace") or ""
        )
        for rule in self.rules:
            if (
                rule.opens is not opens
                or rule.namespace not in {ROOT_NAMESPACE, namespace}
                or not rule.applies(bag)
            ):
                continue
            for bound in rule.checks:
                value = bound.value.evaluate(bag) if bound.value else None
                verdict = bound.check(value)
                if verdict.code:
                    return Verdict(verdict.code, f"{bound.handler}:{verdict.message}")
        return Verdict()


def compile_rules(objects: Iterable[ConfigObject[Any]]) -> RuleSet:
    by_kind: dict[str, dict[tuple[str, str], ConfigObject[Any]]] = {}
    for item in objects:
        by_kind.setdefault(item.key.kind, {})[item.key.namespace, item.key.name] = item
    problems: list[str] = []
    rules = []
    order = sorted(
        by_kind.get("rule", {}).items(), key=lambda pair: (pair[0][0] != ROOT_NAMESPACE, pair[0])
    )
    for _, rule in order:
        try:
            compiled = _compile(rule, by_kind)
        except (ExpressionError, LookupError) as error:
            problems.append(f"{rule.key}: {error}")
            continue
        except (
            Exception
        ) as error:  # one rule, whatever is wrong with it, never takes the others along
            problems.append(f"{rule.key}: cannot be compiled: {type(error).__name__}: {error}")
            continue
        if compiled.checks:
            rules.append(compiled)
    return RuleSet(tuple(rules), tuple(problems))


def _compile(
    rule: ConfigObject[Any], by_kind: Mapping[str, Mapping[tuple[str, str], ConfigObject[Any]]]
) -> CompiledRule:
    """Raises ExpressionError or LookupError for the first thing that is wrong with a rule."""
    match = compile_expression(rule.spec.match, ValueType.BOOL) if rule.spec.match.strip() else None
    checks = []
    for action in rule.spec.actions:
        handler = _find(by_kind, "handler", action.handler, rule)
        check = _adapter(handler)
        for name in action.instances:
            instance = _find(by_kind, "instance", name, rule)
            label = f"{handler.key.name}.handler.{handler.key.namespace}"
            checks.append(BoundCheck(label, check, _value(instance)))
    return CompiledRule(rule.key.name, rule.key.namespace, fails_open(rule), match, tuple(checks))


def _find(
    by_kind: Mapping[str, Mapping[tuple[str, str], ConfigObject[Any]]],
    kind: str,
    name: str,
    rule: ConfigObject[Any],
) -> ConfigObject[Any]:
    wanted = qualified(name, kind, rule.key.namespace)
    found = by_kind.get(kind, {}).get(wanted)
    if found is None:
        raise LookupError(f"there is no {kind} {wanted[0]}/{wanted[1]}")
    return found


def _adapter(handler: ConfigObject[Any]) -> Check:
    params = typed_params(ADAPTERS[handler.spec.compiled_adapter], handler.spec.params, Report())
    if isinstance(params, DenierParams):
        return denier(params)
    if isinstance(params, ListParams):
        return list_checker(params)
    raise LookupError(f"handler {handler.key}: its parameters are not readable")


def _value(instance: ConfigObject[Any]) -> Expression | None:
    params = typed_params(
        TEMPLATES[instance.spec.compiled_template], instance.spec.params, Report()
    )
    if params is BAD:
        raise LookupError(f"instance {instance.key}: its parameters are not readable")
    return compile_expression(params.value) if isinstance(params, ListEntryParams) else None
