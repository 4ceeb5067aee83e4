"""Mixer's kinds: handler, instance, rule. Source: istio/api policy/v1beta1/cfg.proto (before its removal).

Expressions are compiled once to see that they can be; Mixer compiles them again, for use. Parameters are typed by
adapter and template.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from windward.config.common import check_duration
from windward.config.metadata import Metadata
from windward.config.object import ConfigObject
from windward.config.report import Report
from windward.config.types import Duration, Int32, Spec
from windward.config.walk import BAD, walk_struct
from windward.expression.compiled import compile_expression
from windward.expression.syntax import ExpressionError
from windward.expression.vocabulary import ValueType

FAIL_POLICY: Final = "windward.io/fail-policy"
CHECK_TEMPLATES: Final = frozenset({"checknothing", "listentry"})


class Status(Spec, frozen=True):
    """google.rpc.Status without details."""

    code: Int32 = 0
    message: str = ""


class DenierParams(Spec, frozen=True):
    status: Status | None = None
    valid_duration: Duration | None = None
    valid_use_count: Int32 = 0


class ListEntryType(Enum):
    STRINGS = "STRINGS"
    CASE_INSENSITIVE_STRINGS = "CASE_INSENSITIVE_STRINGS"
    IP_ADDRESSES = "IP_ADDRESSES"
    REGEX = "REGEX"


class ListParams(Spec, frozen=True):
    provider_url: str = ""
    refresh_interval: Duration | None = None
    ttl: Duration | None = None
    caching_interval: Duration | None = None
    caching_use_count: Int32 = 0
    overrides: tuple[str, ...] = ()
    entry_type: ListEntryType = ListEntryType.STRINGS
    blacklist: bool = False


class CheckNothingParams(Spec, frozen=True):
    pass


class ListEntryParams(Spec, frozen=True):
    value: str = ""


ADAPTERS: Final[dict[str, type[Spec]]] = {
    "denier": DenierParams,
    "listchecker": ListParams,
    "list": ListParams,
}
TEMPLATES: Final[dict[str, type[Spec]]] = {
    "checknothing": CheckNothingParams,
    "listentry": ListEntryParams,
}


class Handler(Spec, frozen=True):
    compiled_adapter: str = ""
    adapter: str = ""
    params: Any = None
    connection: Any = None


class Instance(Spec, frozen=True):
    compiled_template: str = ""
    template: str = ""
    params: Any = None
    attribute_bindings: dict[str, str] = {}


class Action(Spec, frozen=True):
    handler: str = ""
    instances: tuple[str, ...] = ()
    name: str = ""


class HeaderOperationTemplate(Spec, frozen=True):
    name: str = ""
    values: tuple[str, ...] = ()
    operation: str = ""


class Rule(Spec, frozen=True):
    match: str = ""
    actions: tuple[Action, ...] = ()
    request_header_operations: tuple[HeaderOperationTemplate, ...] = ()
    response_header_operations: tuple[HeaderOperationTemplate, ...] = ()
    sampling: Any = None


def typed_params(kind: type[Spec], raw: Any, report: Report) -> Any:
    """An adapter's or template's parameters; BAD (with findings) when they are wrong."""
    return walk_struct(kind, {} if raw is None else raw, report)


def validate_handler(spec: Handler, _: Metadata, report: Report) -> None:
    if not spec.compiled_adapter:
        report.at("compiledAdapter").error(
            "required", "must be set", f"one of {', '.join(sorted(ADAPTERS))}"
        )
        return
    kind = ADAPTERS.get(spec.compiled_adapter)
    if kind is None:
        report.at("compiledAdapter").error(
            "not-supported",
            f"adapter {spec.compiled_adapter!r} is not supported yet",
            f"one of {', '.join(sorted(ADAPTERS))}",
        )
        return
    params = typed_params(kind, spec.params, report.at("params"))
    if params is BAD:
        return
    entry = report.at("params")
    if isinstance(params, DenierParams):
        if params.status is not None and not 0 <= params.status.code <= 16:
            entry.at("status", "code").error(
                "out-of-range", "must be a gRPC status between 0 and 16"
            )
        if params.valid_duration is not None:
            check_duration(params.valid_duration, entry.at("validDuration"))
    elif isinstance(params, ListParams):
        _list_params(params, entry)


def _list_params(params: ListParams, report: Report) -> None:
    if params.provider_url:
        report.at("providerUrl").error(
            "not-supported", "not supported yet", "list the entries in overrides"
        )
    for name, duration in (("refreshInterval", params.refresh_interval), ("ttl", params.ttl)):
        if duration is not None:
            report.at(name).error("not-supported", "not supported yet: it goes with providerUrl")
    if params.caching_use_count < 0:
        report.at("cachingUseCount").error("out-of-range", "must not be negative")
    if params.entry_type is ListEntryType.REGEX:
        report.at("entryType").error(
            "not-supported", "REGEX is not supported yet", "list the entries as STRINGS"
        )
    if params.entry_type is ListEntryType.IP_ADDRESSES:
        from windward.config.hosts import is_cidr_or_ip

        for index, entry in enumerate(params.overrides):
            if not is_cidr_or_ip(entry):
                report.at("overrides", index).error(
                    "invalid-value", "must be an IP address or CIDR"
                )


def validate_instance(spec: Instance, _: Metadata, report: Report) -> None:
    if not spec.compiled_template:
        report.at("compiledTemplate").error(
            "required", "must be set", f"one of {', '.join(sorted(TEMPLATES))}"
        )
        return
    kind = TEMPLATES.get(spec.compiled_template)
    if kind is None:
        report.at("compiledTemplate").error(
            "not-supported",
            f"template {spec.compiled_template!r} is not supported yet",
            f"one of {', '.join(sorted(TEMPLATES))}",
        )
        return
    params = typed_params(kind, spec.params, report.at("params"))
    if isinstance(params, ListEntryParams):
        _expression(
            params.value, (ValueType.STRING, ValueType.IP_ADDRESS), report.at("params", "value")
        )


def _expression(text: str, wanted: tuple[ValueType, ...], report: Report) -> None:
    try:
        kind = compile_expression(text).type
    except ExpressionError as error:
        report.error("invalid-expression", str(error))
        return
    if kind not in wanted:
        allowed = " or ".join(one.value for one in wanted)
        report.error("invalid-expression", f"must be {allowed}, is {kind.value}")


def validate_rule(spec: Rule, metadata: Metadata, report: Report) -> None:
    if metadata.annotations.get(FAIL_POLICY, "closed") not in {"open", "closed"}:
        Report(f'metadata.annotations["{FAIL_POLICY}"]', report.findings).error(
            "invalid-value", "must be open or closed"
        )
    if spec.match.strip():
        _expression(spec.match, (ValueType.BOOL,), report.at("match"))
    if not spec.actions:
        report.at("actions").error("required", "must have at least one action")
    for index, action in enumerate(spec.actions):
        entry = report.at("actions", index)
        if not action.handler:
            entry.at("handler").error("required", "must be set")
        if not action.instances:
            entry.at("instances").error("required", "must name at least one instance")
        for position, name in enumerate(action.instances):
            if not name:
                entry.at("instances", position).error("required", "must not be empty")


def qualified(name: str, kind: str, namespace: str) -> tuple[str, str]:
    """(namespace, name) that a rule means by ``name``, ``name.namespace`` or ``name.kind.namespace``."""
    parts = name.split(".")
    if len(parts) == 3 and parts[1] == kind:
        return parts[2], parts[0]
    if len(parts) == 2:
        return (namespace, parts[0]) if parts[1] == kind else (parts[1], parts[0])
    return namespace, name


def fails_open(rule: ConfigObject[Any]) -> bool:
    """Whether requests pass when Mixer cannot be asked about this rule."""
    return rule.annotations.get(FAIL_POLICY, "closed") == "open"


def is_check_rule(rule: ConfigObject[Any], instances: Iterable[ConfigObject[Any]]) -> bool:
    """Whether a rule decides about requests: one of its instances has a check template."""
    templates = {
        (item.key.namespace, item.key.name): item.spec.compiled_template for item in instances
    }
    return any(
        templates.get(qualified(name, "instance", rule.key.namespace)) in CHECK_TEMPLATES
        for action in rule.spec.actions
        for name in action.instances
    )
