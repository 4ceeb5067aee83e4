"""``windward apply | get | describe | delete``: configuration objects in a running mesh."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from windward.api.config.v1 import config_pb2
from windward.cli import files, kinds
from windward.cli.connect import CHANGE_DEADLINE_S, DEADLINE_S, pilot
from windward.cli.failures import UserError
from windward.cli.findings import Row, errors, show
from windward.cli.output import print_data, print_table, say, say_unanswered
from windward.cli.validation import document_rows
from windward.config.document import parse_documents
from windward.config.registry import KINDS

ACTIONS = {
    config_pb2.Applied.CREATED: "created",
    config_pb2.Applied.CONFIGURED: "configured",
    config_pb2.Applied.UNCHANGED: "unchanged",
    config_pb2.Applied.DELETED: "deleted",
}
SEVERITIES = {config_pb2.Finding.ERROR: "error", config_pb2.Finding.WARNING: "warning"}


def apply(
    names: Sequence[str], namespace: str | None, reason: str, output: str, context: str | None
) -> None:
    inputs, rows = _read_inputs(names)
    if rows:
        show(rows, output)
        sys.exit(1)
    request = config_pb2.ApplyRequest(
        objects=inputs, default_namespace=namespace or "default", reason=reason
    )
    _check_size(request)
    with pilot(context) as stub:
        response = stub.Apply(request, timeout=CHANGE_DEADLINE_S)
    found = [finding_row(finding) for finding in response.findings]
    if output == "table":
        show(found, output)
        for applied in response.applied:
            sys.stdout.write(f"{ref_text(applied.ref)} {ACTIONS[applied.action]}\n")
    else:
        applied_data = [
            {
                "object": ref_text(applied.ref),
                "action": ACTIONS[applied.action],
                "generation": applied.generation,
            }
            for applied in response.applied
        ]
        data = {
            "applied": applied_data,
            "revision": response.revision,
            "findings": [row_data(row) for row in found],
        }
        print_data(data, output)
    if count := errors(found):
        say(f"nothing was applied: {count} error{'s' if count > 1 else ''}")
        sys.exit(1)


def _check_size(request: config_pb2.ApplyRequest) -> None:
    """Pilot takes messages of a bounded size: say so in a user's words. Raises UserError."""
    from windward.rpc.server import MESSAGE_LIMIT_BYTES

    size, most = request.ByteSize(), MESSAGE_LIMIT_BYTES
    if size > most:
        count = len(request.objects)
        raise UserError(
            f"{count} object{'s' if count > 1 else ''} of {size / 2**20:.1f} MiB at once: "
            f"at most {most // 2**20} MiB are taken; apply them in parts"
        )


def get(
    kind: str, name: str | None, namespace: str | None, output: str, context: str | None
) -> None:
    with pilot(context) as stub:
        if name is not None:
            found = [_get_one(stub, kind, name, namespace)]
        else:
            wanted = None if kind == "all" else kinds.resolve(kind)
            request = config_pb2.ListRequest(
                group=wanted.group if wanted else "",
                kind=wanted.kind if wanted else "",
                namespace=namespace or "",
            )
            found = list(stub.List(request, timeout=DEADLINE_S).objects)
    if output == "table":
        print_table(
            ("KIND", "NAMESPACE", "NAME", "GENERATION", "AGE"),
            [
                (item.ref.kind, item.ref.namespace, item.ref.name, item.generation, age(item))
                for item in found
            ],
        )
        return
    data = [object_data(item) for item in found]
    print_data(data[0] if name is not None else data, output)


def describe(kind: str, name: str, namespace: str | None, output: str, context: str | None) -> None:
    with pilot(context) as stub:
        item = _get_one(stub, kind, name, namespace)
        status = stub.GetObjectStatus(config_pb2.GetRequest(ref=item.ref), timeout=DEADLINE_S)
    say_unanswered(status.unanswered)
    data = object_data(item)
    state = {
        "proxies": status.proxies,
        "acked": status.acked,
        "rejections": list(status.rejections),
        "refusals": [refusal_data(item) for item in status.refusals],
    }
    if status.HasField("push"):
        state["push"] = push_data(status.push)
    if output != "table":
        print_data({**data, "status": state}, output)
        return
    sys.stdout.write(f"{ref_text(item.ref)}\n")
    sys.stdout.write(f"generation {item.generation}, revision {item.revision}, age {age(item)}\n")
    sys.stdout.write(f"accepted by {status.acked} of {status.proxies} proxies that use it\n")
    if status.HasField("push"):
        sys.stdout.write(f"last push: {push_text(status.push)}\n")
    for refusal in status.refusals:
        where = f"{refusal.path}: " if refusal.path else ""
        sys.stdout.write(f"  refused by Envoy: {where}{refusal.message} ({refusal.name})\n")
    if not status.refusals:
        for rejection in status.rejections:
            sys.stdout.write(f"  refused: {rejection}\n")
    sys.stdout.write("---\n")
    print_data(data, "yaml")


def push_text(push: config_pb2.Push) -> str:
    """How far the last push of an object is, in words."""
    text = f"{push.resources} resources, accepted by {push.accepted} of {push.proxies} proxies"
    if push.accepted:
        text += f", p50 {push.p50_ms:.0f} ms, p99 {push.p99_ms:.0f} ms"
    return text


def push_data(push: config_pb2.Push) -> dict[str, Any]:
    return {
        "proxies": push.proxies,
        "accepted": push.accepted,
        "resources": push.resources,
        "p50_ms": round(push.p50_ms, 3),
        "p99_ms": round(push.p99_ms, 3),
    }


def refusal_data(refusal: config_pb2.Refusal) -> dict[str, Any]:
    return {
        "resource": refusal.name,
        "type": refusal.type_url,
        "path": refusal.path,
        "message": refusal.message,
        "by": list(refusal.by),
        "held": refusal.held,
    }


def delete(
    kind: str | None,
    name: str | None,
    names: Sequence[str],
    namespace: str | None,
    reason: str,
    context: str | None,
) -> None:
    with pilot(context) as stub:
        refs = _refs_to_delete(stub, kind, name, names, namespace)
        response = stub.Delete(
            config_pb2.DeleteRequest(refs=refs, reason=reason), timeout=CHANGE_DEADLINE_S
        )
    for applied in response.applied:
        sys.stdout.write(f"{ref_text(applied.ref)} {ACTIONS[applied.action]}\n")


def _refs_to_delete(
    stub: Any, kind: str | None, name: str | None, names: Sequence[str], namespace: str | None
) -> list[config_pb2.ObjectRef]:
    if names:
        inputs, rows = _read_inputs(names)
        if rows:
            show(rows, "table")
            raise UserError("nothing was deleted")
        return [_ref_of(json.loads(item.json), namespace) for item in inputs]
    if kind is None or name is None:
        raise UserError("say what to delete: KIND NAME, or -f FILE")
    return [_get_one(stub, kind, name, namespace).ref]


def _read_inputs(names: Sequence[str]) -> tuple[list[config_pb2.ObjectInput], list[Row]]:
    """Every document of the files, and the findings about files that are not readable as YAML."""
    inputs: list[config_pb2.ObjectInput] = []
    rows: list[Row] = []
    for file, text in files.read(names):
        for document in parse_documents(text, file):
            rows += document_rows(document)
            if document.raw is not None:
                encoded = json.dumps(document.raw).encode()
                inputs.append(config_pb2.ObjectInput(json=encoded, file=file, lines=document.lines))
    if not inputs and not rows:
        raise UserError(f"no object in {', '.join(names)}")
    return inputs, rows


def _ref_of(raw: dict[str, Any], namespace: str | None) -> config_pb2.ObjectRef:
    metadata = raw.get("metadata") or {}
    return config_pb2.ObjectRef(
        group=str(raw.get("apiVersion", "")).partition("/")[0],
        kind=str(raw.get("kind", "")),
        namespace=str(metadata.get("namespace") or namespace or "default"),
        name=str(metadata.get("name", "")),
    )


def _get_one(stub: Any, kind: str, name: str, namespace: str | None) -> config_pb2.Object:
    """One object; without a namespace, the only one of that name in any."""
    wanted = kinds.resolve(kind)
    if namespace is not None:
        ref = config_pb2.ObjectRef(
            group=wanted.group, kind=wanted.kind, namespace=namespace, name=name
        )
        found: config_pb2.Object = stub.Get(config_pb2.GetRequest(ref=ref), timeout=DEADLINE_S)
        return found
    request = config_pb2.ListRequest(group=wanted.group, kind=wanted.kind)
    matches = [
        item for item in stub.List(request, timeout=DEADLINE_S).objects if item.ref.name == name
    ]
    if not matches:
        raise UserError(f"there is no {wanted.kind} named {name}")
    if len(matches) > 1:
        where = ", ".join(item.ref.namespace for item in matches)
        raise UserError(
            f"{wanted.kind} {name} exists in several namespaces ({where}): name one with -n"
        )
    only: config_pb2.Object = matches[0]
    return only


def object_data(item: config_pb2.Object) -> dict[str, Any]:
    """The object as the user wrote it, with what the store knows of it in its metadata."""
    raw: dict[str, Any] = json.loads(item.json)
    metadata = {**raw.get("metadata", {}), "namespace": item.ref.namespace, "name": item.ref.name}
    metadata |= {"generation": item.generation, "resourceVersion": str(item.revision)}
    return {**raw, "metadata": metadata}


def finding_row(finding: config_pb2.Finding) -> Row:
    return Row(
        file=finding.file,
        line=finding.line,
        kind=finding.ref.kind,
        namespace=finding.ref.namespace,
        name=finding.ref.name,
        path=finding.path,
        severity=SEVERITIES.get(finding.severity, "error"),
        code=finding.code,
        message=finding.message,
        fix=finding.fix,
    )


def row_data(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def ref_text(ref: config_pb2.ObjectRef) -> str:
    plural = (
        KINDS[ref.group, ref.kind].plural if (ref.group, ref.kind) in KINDS else ref.kind.lower()
    )
    return f"{plural}/{ref.namespace}/{ref.name}"


def age(item: config_pb2.Object) -> str:
    """As kubectl says it: 12s, 5m, 3h, 2d."""
    seconds = int((datetime.now(UTC) - item.created_at.ToDatetime(UTC)).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"
