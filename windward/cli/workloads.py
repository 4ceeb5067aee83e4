"""``windward workload onboard``: a machine outside joins the mesh, with one command here and one there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration as ProtoDuration

from windward.api.config.v1 import config_pb2
from windward.api.trust.v1 import trust_pb2
from windward.cli.connect import DEADLINE_S, citadel, pilot
from windward.cli.failures import UserError
from windward.cli.machine import START, ControlPlane, Machine, faults, files
from windward.cli.output import say
from windward.client import context as contexts
from windward.config.types import parse_duration
from windward.identity.spiffe_id import SpiffeIdError, workload_id

GROUP = ("networking.istio.io", "WorkloadGroup")


def parse_labels(text: str) -> dict[str, str]:
    """``app=db,version=v1``. Raises UserError."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise UserError(f"--labels {text!r}: must be name=value by comma")
    return {name.strip(): value.strip() for name, _, value in pairs}


def onboard(
    machine: Machine,
    folder: Path,
    ttl: str,
    *,
    pilots: Sequence[str],
    citadel_tls: str | None,
    citadel_mtls: str | None,
    context: str | None,
) -> None:
    """Make the group if there is none, the token and the folder. Nothing is made unless all of it can be."""
    plane = _control_plane(pilots, citadel_tls, citadel_mtls, context)
    problems = faults(machine, plane)
    if problems:
        raise UserError("; ".join(problems))
    try:
        identity = str(workload_id(plane.trust_domain, machine.namespace, machine.service_account))
        seconds = parse_duration(ttl)
    except (SpiffeIdError, ValueError) as error:
        raise UserError(str(error)) from error
    if (folder / "state").exists():
        raise UserError(f"{folder} is in use by a sidecar: name another folder with --output")
    machine = _ensure_group(machine, context)
    request = trust_pb2.CreateJoinTokenRequest(
        identity=identity, ttl=ProtoDuration(seconds=int(seconds)), max_uses=1
    )
    with citadel(context) as stub:
        token = stub.CreateJoinToken(request, timeout=DEADLINE_S).token
    _write(folder, files(machine, plane, token))
    sys.stdout.write(f"{folder}\n")
    say(f"copy {folder} to the machine, and run {START} there as root within {ttl}")


def _control_plane(
    pilots: Sequence[str],
    citadel_tls: str | None,
    citadel_mtls: str | None,
    context: str | None,
) -> ControlPlane:
    path = contexts.locate(context)
    found = contexts.load(path)
    return ControlPlane(
        pilot=tuple(pilots) or (found.pilot,),
        citadel=citadel_tls or found.citadel.tls,
        citadel_mtls=citadel_mtls or found.citadel.mtls,
        trust_domain=found.trust_domain,
        roots_pem=found.read("trust_bundle_file", path.parent).decode("ascii"),
    )


def _ensure_group(machine: Machine, context: str | None) -> Machine:
    """The group that it registers into: the one there is, if it runs as the same account, or a new one."""
    ref = config_pb2.ObjectRef(
        group=GROUP[0], kind=GROUP[1], namespace=machine.namespace, name=machine.group
    )
    with pilot(context) as stub:
        try:
            present = stub.Get(config_pb2.GetRequest(ref=ref), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            if not hasattr(error, "code") or error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return _new_group(machine, stub)
    account = json.loads(present.json)["spec"].get("template", {}).get("serviceAccount", "default")
    if account != machine.service_account:
        raise UserError(
            f"WorkloadGroup {machine.namespace}/{machine.group} runs as {account}, not as "
            f"{machine.service_account}: give -s {account}, or another --group"
        )
    return machine


def _new_group(machine: Machine, stub: Any) -> Machine:
    machine = replace(machine, labels=machine.labels or {"app": machine.group})
    made = {
        "apiVersion": f"{GROUP[0]}/v1",
        "kind": GROUP[1],
        "metadata": {"name": machine.group, "namespace": machine.namespace},
        "spec": {
            "metadata": {"labels": dict(machine.labels)},
            "template": {"serviceAccount": machine.service_account},
        },
    }
    encoded = config_pb2.ObjectInput(json=json.dumps(made).encode())
    response = stub.Apply(
        config_pb2.ApplyRequest(objects=[encoded], reason=f"onboarding of {machine.name}"),
        timeout=DEADLINE_S,
    )
    if not response.revision:
        raise UserError("; ".join(f"{item.path}: {item.message}" for item in response.findings))
    say(f"WorkloadGroup {machine.namespace}/{machine.group} created: a ServiceEntry may select it")
    return machine


def _write(folder: Path, texts: dict[str, tuple[str, int]]) -> None:
    """Each file whole, with its mode from the first byte on."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, (text, mode) in texts.items():
            new = folder / f"{name}.new"
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            new.chmod(mode)
            new.replace(folder / name)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
