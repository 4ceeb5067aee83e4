"""citadel/bootstrap: ProxyConfigs in protobuf's text form against the bootstraps Istio makes of them.

A case passes when what we make says everything that its golden says (a list may hold more, in any order). Inputs that
its golden implies, metadata and annotations, are read off the golden's node. What is not compared: the name of Istio's
template file. A real Envoy must accept each of ours too.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from services.agent.envoy.bootstrap import Place, bootstrap
from services.agent.envoy.node import build_node
from services.agent.envoy.process import find_envoy
from services.agent.envoy.proxy_config import parse_proxy_config
from tests.conformance.cases import Result

NODE_ID = "sidecar~1.2.3.4~foo~bar"
ADDRESSES = ("10.3.3.3", "10.4.4.4", "10.5.5.5", "10.6.6.6", "10.4.4.4")
PILOT = "spiffe://cluster.local/ns/istio-system/sa/istio-pilot-service-account"
SDS = "./var/run/secrets/workload-spiffe-uds/test.sock"
TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z_][\w.]*|-?\d+|[{}\[\],:]')
META_OF_METADATA = (
    "ENABLE_HBONE",
    "INTERCEPTION_MODE",
    "ISTIO_PROXY_SHA",
    "ISTIO_VERSION",
    "LOAD_STATS_CONFIG_JSON",
    "POD_NAME",
    "GLOBAL_DOWNSTREAM_MAX_CONNECTIONS",
)
DURATIONS = {"drain_duration", "parent_shutdown_duration", "termination_drain_duration"}
WRAPPED = {"global_downstream_connection_limit", "stats_compression"}


def run(folder: Path) -> Result:
    result = Result()
    for golden in sorted((folder / "citadel" / "bootstrap" / "golden").glob("*_golden.json")):
        name = golden.name.removesuffix("_golden.json")
        try:
            made = made_for(golden)
            found = (refused_by_envoy(made), missing(json.loads(golden.read_text()), made))
            why = "; ".join(filter(None, found))
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        result.count(f"citadel/bootstrap#{name}", why)
    return result


def refused_by_envoy(made: dict[str, Any]) -> str:
    checked = subprocess.run(
        [find_envoy(""), "--mode", "validate", "--config-yaml", json.dumps(made),
         "--disable-hot-restart", "-l", "critical"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return f"Envoy refuses it: {checked.stderr[-300:]}" if checked.returncode else ""


def made_for(golden: Path) -> dict[str, Any]:
    """Our bootstrap for a golden's inputs."""
    wanted = json.loads(golden.read_text())
    metadata = wanted["node"]["metadata"]
    source = golden.with_name(golden.name.replace("_golden.json", ".proxycfg"))
    if not source.exists():
        source = golden.with_name("default.proxycfg")
    config = from_text(source.read_text()) | {
        "configPath": metadata["PROXY_CONFIG"]["configPath"],
        "statusPort": 15020,
    }
    environ = {f"ISTIO_META_{key}": metadata[key] for key in META_OF_METADATA if key in metadata}
    for key in ("LABELS", "ANNOTATIONS"):
        if key in metadata:
            given = {name: metadata.get(name, value) for name, value in metadata[key].items()}
            environ[f"ISTIO_METAJSON_{key}"] = json.dumps(given)
    limit = environ.get("ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS")
    if limit:
        config["proxyMetadata"] = {"ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS": limit}
    proxy, raw = parse_proxy_config(json.dumps(config))
    node = build_node(
        node_id=NODE_ID,
        known={key: metadata[key] for key in ("NAME", "NAMESPACE") if key in metadata},
        environ=environ,
        proxy=proxy,
        proxy_raw=raw,
        instance_ips=ADDRESSES,
    )
    place = Place(
        admin=("127.0.0.1", proxy.proxy_admin_port),
        agent=("127.0.0.1", proxy.status_port),
        secure_metrics_port=metadata.get("ENVOY_SECURE_METRICS_PORT", 0),
        secure_merged_metrics_port=metadata.get("ENVOY_SECURE_MERGED_METRICS_PORT", 0),
        xds_socket="/tmp/XDS",
        sds_socket=SDS,
        pilot_sans=(PILOT,),
        profile_path="/var/lib/istio/data/envoy.prof",
        compliance_policy="fips-140-2" if "lrs" in golden.name else "",
    )
    return bootstrap(node, proxy, place)


def missing(wanted: Any, made: Any, path: str = "") -> str:
    """The first thing of ``wanted`` that ``made`` does not say; empty when it says all."""
    if path.endswith(".customConfigFile"):
        return ""
    if isinstance(wanted, dict) and isinstance(made, dict):
        for key, value in wanted.items():
            where = f"{path}.{key}"
            if key not in made and not where.endswith(".customConfigFile"):
                return f"{where} is missing"
            why = missing(value, made.get(key), where)
            if why:
                return why
        return ""
    if isinstance(wanted, list) and isinstance(made, list):
        left = list(made)
        for number, value in enumerate(wanted):
            found = next((item for item in left if not missing(value, item, path)), None)
            if found is None:
                return f"{path}[{number}] is missing: {json.dumps(value)[:200]}"
            left.remove(found)
        return ""
    return "" if wanted == made else f"{path}: {made!r}, wanted {wanted!r}"


def from_text(text: str) -> dict[str, Any]:
    """A message in protobuf's text form as its JSON, as far as ProxyConfigs here go; an enum's default is left out."""
    without = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    tokens = TOKENS.findall(without)
    message, end = _message(tokens, 0)
    assert end == len(tokens), tokens[end : end + 5]
    return {key: value for key, value in message.items() if value != "NONE"}


def _message(tokens: list[str], at: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while at < len(tokens) and tokens[at] != "}":
        field, at = tokens[at], at + 1
        at += tokens[at] == ":"
        value, at = _value(tokens, at)
        at += at < len(tokens) and tokens[at] == ","
        found[_camel(field)] = _json_form(field, value)
    return found, at


def _value(tokens: list[str], at: int) -> tuple[Any, int]:
    token = tokens[at]
    if token == "{":
        value, at = _message(tokens, at + 1)
        return value, at + 1
    if token == "[":
        items, at = [], at + 1
        while tokens[at] != "]":
            item, at = _value(tokens, at)
            items.append(item)
            at += tokens[at] == ","
        return items, at + 1
    if token[0] == '"':
        return json.loads(token), at + 1
    if token in {"true", "false"}:
        return token == "true", at + 1
    return (int(token) if token.lstrip("-").isdigit() else token), at + 1


def _json_form(field: str, value: Any) -> Any:
    if field in DURATIONS:
        return f"{value.get('seconds', 0)}s"
    if field in WRAPPED:
        return value["value"]
    if field == "runtime_values":
        return {item["key"]: item["value"] for item in value}
    return value


def _camel(field: str) -> str:
    first, *rest = field.split("_")
    return first + "".join(word.capitalize() for word in rest)
