"""The mesh's administrator: the first certificate, join tokens, configuration, and who is in sync."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.duration_pb2 import Duration

from windward.api.config.v1 import config_pb2, config_pb2_grpc
from windward.api.trust.v1 import trust_pb2, trust_pb2_grpc
from windward.client.certificates import CERTIFICATE_FILE, KEY_FILE, CertificateKeeper, Enrolment
from windward.config.document import parse_documents
from windward.identity.names import (
    ADMIN_ACCOUNT,
    CITADEL_ACCOUNT,
    CONTROL_PLANE_DNS,
    PILOT_ACCOUNT,
    ROOT_NAMESPACE,
)
from windward.identity.spiffe_id import workload_id
from windward.local.errors import LocalMeshError
from windward.rpc.channel import ChannelSource

CALL_TIMEOUT_S = 10.0
TOKEN_TTL_S = 3600
TOKEN_USES = 100
"""A part of the local mesh that is started again on a lost state folder may need its token again."""


class Administrator:
    """Use as an async context manager; ``up`` once Citadel answers."""

    certificate_name = CERTIFICATE_FILE
    key_name = KEY_FILE

    def __init__(
        self,
        *,
        citadel_tls: str,
        citadel_mtls: str,
        pilot: str,
        bootstrap: Path,
        state: Path,
        trust_domain: str,
    ) -> None:
        self._keeper = CertificateKeeper(
            Enrolment(
                identity=workload_id(trust_domain, ROOT_NAMESPACE, ADMIN_ACCOUNT),
                tls_address=citadel_tls,
                mtls_address=citadel_mtls,
                trust_bundle_file=bootstrap / "root-cert.pem",
                token_file=bootstrap / "admin.token",
                state_dir=state,
                ttl_s=86_400,
            )
        )
        self._citadel_mtls = citadel_mtls
        self._pilot_address = pilot
        self._citadel: ChannelSource
        self._pilot: ChannelSource
        self._renewal: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        source = await self._keeper.first()
        self._citadel = ChannelSource(
            [self._citadel_mtls], server_name=CONTROL_PLANE_DNS[CITADEL_ACCOUNT], source=source
        )
        self._pilot = ChannelSource(
            [self._pilot_address], server_name=CONTROL_PLANE_DNS[PILOT_ACCOUNT], source=source
        )
        self._renewal = asyncio.create_task(self._keeper.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._renewal.cancel()
        await asyncio.gather(self._renewal, return_exceptions=True)
        await self._citadel.close()
        await self._pilot.close()

    async def create_token(self, identity: str) -> str:
        stub = trust_pb2_grpc.TrustServiceStub(self._citadel.channel())
        request = trust_pb2.CreateJoinTokenRequest(
            identity=identity, ttl=Duration(seconds=TOKEN_TTL_S), max_uses=TOKEN_USES
        )
        answer = await stub.CreateJoinToken(request, timeout=CALL_TIMEOUT_S)
        return str(answer.token)

    # ---- configuration ----------------------------------------------------------------------------------------------

    async def apply(self, files: Sequence[Path]) -> config_pb2.ApplyResponse:
        """Apply files. Raises LocalMeshError with the first error, if they are refused."""
        inputs = [item for file in files for item in read_inputs(file.read_text(), str(file))]
        return await self._apply(inputs)

    async def apply_text(self, text: str) -> config_pb2.ApplyResponse:
        return await self._apply(read_inputs(text, "-"))

    async def _apply(self, inputs: list[config_pb2.ObjectInput]) -> config_pb2.ApplyResponse:
        answer: config_pb2.ApplyResponse = await self._stub().Apply(
            config_pb2.ApplyRequest(objects=inputs), timeout=CALL_TIMEOUT_S
        )
        for finding in answer.findings:
            if finding.severity == config_pb2.Finding.ERROR:
                where = f"{finding.ref.kind}/{finding.ref.namespace}/{finding.ref.name}"
                raise LocalMeshError(
                    f"{finding.file}:{finding.line}: {where}: {finding.path}: {finding.message}"
                )
        return answer

    async def delete(self, refs: Iterable[config_pb2.ObjectRef]) -> config_pb2.DeleteResponse:
        answer: config_pb2.DeleteResponse = await self._stub().Delete(
            config_pb2.DeleteRequest(refs=list(refs)), timeout=CALL_TIMEOUT_S
        )
        return answer

    async def list(self) -> Sequence[config_pb2.Object]:
        answer = await self._stub().List(config_pb2.ListRequest(), timeout=CALL_TIMEOUT_S)
        return list(answer.objects)

    async def proxies(self) -> Sequence[config_pb2.ProxyStatus]:
        """Connected proxies; none while Pilot is away."""
        try:
            answer = await self._stub().ListProxies(
                config_pb2.ListProxiesRequest(), timeout=CALL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return []
        return list(answer.proxies)

    def _stub(self) -> config_pb2_grpc.ConfigServiceAsyncStub:
        return config_pb2_grpc.ConfigServiceStub(self._pilot.channel())


def read_inputs(text: str, file: str) -> list[config_pb2.ObjectInput]:
    """Every object of a text. Raises LocalMeshError for one that is not readable."""
    inputs = []
    for document in parse_documents(text, file):
        if document.raw is None:
            raise LocalMeshError(f"{file}:{document.line}: {document.findings[0].message}")
        encoded = json.dumps(document.raw).encode()
        inputs.append(config_pb2.ObjectInput(json=encoded, file=file, lines=document.lines))
    return inputs
