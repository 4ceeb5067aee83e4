"""Mixer's objects as a user would write them, decoded as admission decodes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from windward.config.decode import decode_object
from windward.config.mixer_rule import FAIL_POLICY
from windward.config.object import ConfigObject
from windward.identity.names import ROOT_NAMESPACE


def raw(
    kind: str, name: str, spec: dict[str, Any], namespace: str, **annotations: str
) -> dict[str, Any]:
    return {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": spec,
    }


def decoded(document: dict[str, Any]) -> ConfigObject[Any]:
    made, findings = decode_object(document)
    assert made is not None, findings
    return made


def left_behind(item: ConfigObject[Any], **fields: Any) -> ConfigObject[Any]:
    """As a version that checked less may have stored it: fields that admission refuses today."""
    return replace(
        item,
        spec=msgspec.structs.replace(item.spec, **fields),
        raw={**item.raw, "spec": {**item.raw["spec"], **fields}},
    )


def a_denier(
    name: str = "guard", namespace: str = ROOT_NAMESPACE, **params: Any
) -> ConfigObject[Any]:
    spec = {"compiledAdapter": "denier", "params": params}
    return decoded(raw("handler", name, spec, namespace))


def a_list(
    *entries: str, name: str = "guard", namespace: str = ROOT_NAMESPACE, **params: Any
) -> ConfigObject[Any]:
    spec = {"compiledAdapter": "list", "params": {"overrides": list(entries), **params}}
    return decoded(raw("handler", name, spec, namespace))


def an_instance(
    value: str = "", *, name: str = "what", namespace: str = ROOT_NAMESPACE
) -> ConfigObject[Any]:
    """A listentry of an expression, or checknothing without one."""
    spec: dict[str, Any] = (
        {"compiledTemplate": "listentry", "params": {"value": value}}
        if value
        else {"compiledTemplate": "checknothing"}
    )
    return decoded(raw("instance", name, spec, namespace))


def a_rule(
    match: str = "",
    *,
    name: str = "rule",
    namespace: str = ROOT_NAMESPACE,
    policy: str = "closed",
    handler: str = "guard",
    instances: tuple[str, ...] = ("what",),
) -> ConfigObject[Any]:
    spec = {"match": match, "actions": [{"handler": handler, "instances": list(instances)}]}
    return decoded(raw("rule", name, spec, namespace, **{FAIL_POLICY: policy}))
