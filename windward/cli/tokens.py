"""``windward token create``: how a workload on another machine gets its first certificate."""

from __future__ import annotations

import sys

from google.protobuf.duration_pb2 import Duration as ProtoDuration

from windward.api.trust.v1 import trust_pb2
from windward.cli.connect import DEADLINE_S, citadel
from windward.cli.failures import UserError
from windward.cli.output import say
from windward.client import context as contexts
from windward.config.types import parse_duration
from windward.identity.spiffe_id import SpiffeIdError, workload_id


def create(namespace: str, service_account: str, ttl: str, uses: int, context: str | None) -> None:
    domain = contexts.load(contexts.locate(context)).trust_domain
    try:
        identity = str(workload_id(domain, namespace, service_account))
        seconds = parse_duration(ttl)
    except (SpiffeIdError, ValueError) as error:
        raise UserError(str(error)) from error
    request = trust_pb2.CreateJoinTokenRequest(
        identity=identity, ttl=ProtoDuration(seconds=int(seconds)), max_uses=uses
    )
    with citadel(context) as stub:
        response = stub.CreateJoinToken(request, timeout=DEADLINE_S)
    sys.stdout.write(response.token + "\n")
    say(
        f"for {identity}, until {response.expires_at.ToJsonString()}, {uses} use{'s' if uses > 1 else ''}"
    )
