"""An object of any kind: from JSON to a valid ConfigObject, or to every finding there is.

raw -> kind and version -> metadata -> spec (walk) -> the kind's own rules -> fields not built yet
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

from windward.config.finding import Finding, Severity
from windward.config.hosts import is_dns_label
from windward.config.object import ConfigObject, ObjectKey
from windward.config.registry import KINDS, Kind, Metadata
from windward.config.report import Report
from windward.config.unbuilt import unbuilt_fields
from windward.config.walk import BAD, name_of, walk_partial

_SUBDOMAIN: Final = re.compile(
    r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
)
_LABEL_KEY: Final = re.compile(
    r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_TOP: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_SERVER_SET: Final = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "ownerReferences",
     "finalizers", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName", "clusterName"}
)  # fmt: skip
"""Metadata that Kubernetes writes itself; taken in dumps, without meaning here."""


_KNOWN: Final = f"known kinds: {', '.join(sorted(kind for _, kind in KINDS))}"


def decode_object(
    raw: Mapping[str, Any], *, default_namespace: str = "default"
) -> tuple[ConfigObject[Any] | None, tuple[Finding, ...]]:
    """The object, and everything to say about it. None if, and only if, one finding is an error."""
    report = Report()
    kind = _kind(raw, report)
    metadata = _metadata(raw.get("metadata"), default_namespace, report.at("metadata"))
    for key in raw:
        if key not in _TOP:
            near = get_close_matches(str(key), _TOP, n=1)
            report.at(str(key)[:100]).error(
                "unknown-field",
                "there is no such field",
                f"did you mean {near[0]}?" if near else "",
            )
    if kind is None:
        return None, tuple(report.findings)
    spec_report = report.at("spec")
    given = raw.get("spec")
    spec = walk_partial(kind.spec_type, {} if given is None else given, spec_report)
    if spec is not BAD:
        typed = tuple(report.findings)
        rules = Report("spec")
        kind.validate(spec, metadata, rules)
        report.findings.extend(item for item in rules.findings if not _follows(item.path, typed))
        for path in unbuilt_fields(kind.group, kind.kind, {"spec": given or {}}):
            Report(path, report.findings).error("not-supported", "not supported yet")
    if report.has_errors:
        return None, tuple(report.findings)
    named = ObjectKey(kind.group, kind.kind, metadata.namespace, metadata.name)
    made = ConfigObject(
        key=named,
        spec=spec,
        raw=dict(raw),
        labels=metadata.labels,
        annotations=metadata.annotations,
    )
    return made, tuple(report.findings)


def _follows(path: str, typed: tuple[Finding, ...]) -> bool:
    """Whether a rule's finding may only be there because a field at or below its path could not be read."""
    return any(
        item.path == path or item.path.startswith((f"{path}.", f"{path}[")) for item in typed
    )


def errors(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    return tuple(finding for finding in findings if finding.severity is Severity.ERROR)


def _kind(raw: Mapping[str, Any], report: Report) -> Kind | None:
    version, name = raw.get("apiVersion"), raw.get("kind")
    if isinstance(version, str) and version and "/" not in version:
        report.at("kind").error(
            "unknown-kind", f"there is no kind {str(name)[:60]} in {version[:60]}", _KNOWN
        )
        return None
    if not isinstance(version, str) or not version:
        report.at("apiVersion").error("required", "must be set, e.g. networking.istio.io/v1")
        return None
    if not isinstance(name, str):
        report.at("kind").error("required", "must be set, e.g. VirtualService")
        return None
    group, _, number = version.partition("/")
    kind = KINDS.get((group, name))
    if kind is None:
        near = get_close_matches(name, [known for _, known in KINDS], n=1)
        fix = f"did you mean {near[0]}?" if near else _KNOWN
        report.at("kind").error(
            "unknown-kind", f"there is no kind {name[:60]} in {group[:60]}", fix
        )
        return None
    if number not in kind.versions:
        fix = f"use {group}/{kind.versions[0]}"
        report.at("apiVersion").error(
            "unknown-version", f"{name} has no version {number[:30]}", fix
        )
    return kind


def _metadata(raw: Any, default_namespace: str, report: Report) -> Metadata:
    if not isinstance(raw, dict):
        report.error("required", f"must be a mapping with a name, is {name_of(raw)}")
        return Metadata("", default_namespace)
    for key in raw:
        if key not in {"name", "namespace", "labels", "annotations", *_SERVER_SET}:
            report.at(str(key)[:100]).error("unknown-field", "there is no such field")
    name, namespace = raw.get("name"), raw.get("namespace")
    if not isinstance(name, str) or not name:
        report.at("name").error("required", "must be set")
        name = ""
    elif len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        report.at("name").error(
            "invalid-value", "must be lower-case letters, digits, '-' and '.', at most 253"
        )
    if namespace is None or namespace == "":
        namespace = default_namespace
    elif not isinstance(namespace, str) or not is_dns_label(namespace):
        report.at("namespace").error(
            "invalid-value", "must be a DNS label: lower-case letters, digits and '-', at most 63"
        )
        namespace = default_namespace
    labels = _text_map(raw.get("labels"), report.at("labels"))
    check_labels(labels, report.at("labels"))
    annotations = _text_map(raw.get("annotations"), report.at("annotations"))
    return Metadata(name, namespace, labels, annotations)


def _text_map(raw: Any, report: Report) -> dict[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        report.error("wrong-type", f"must be a mapping, is {name_of(raw)}")
        return {}
    made = {}
    for key, value in raw.items():
        if isinstance(key, str) and isinstance(value, str):
            made[key] = value
        else:
            report.key(key).error(
                "wrong-type", f"must be text, is {name_of(value)}", f'write it as "{value}"'
            )
    return made


def check_labels(labels: Mapping[str, str], report: Report) -> None:
    """Kubernetes' rules for label keys and values."""
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            report.key(key[:80]).error("invalid-value", "is not a label key")
        if not _LABEL_VALUE.fullmatch(value):
            report.key(key[:80]).error("invalid-value", f"{value[:80]!r} is not a label value")
