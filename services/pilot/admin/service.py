"""windward.admin.v1.AdminService: the views over gRPC, for those who may read configuration."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc

from services.pilot.admin.views import Reader
from services.pilot.api.access import Access, Everybody
from services.pilot.siblings import asked_alone
from windward.api.admin.v1 import admin_pb2, admin_pb2_grpc


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    def __init__(
        self,
        reader: Reader,
        access: Access | Everybody,
        metrics: Callable[[], bytes],
        worker: str = "",
        alone: Reader | None = None,
    ) -> None:
        """``alone``: what another Pilot reads, which asks all others itself."""
        self._reader = reader
        self._alone = alone or reader
        self._access = access
        self._metrics = metrics
        self._worker = worker

    async def Read(  # noqa: N802  the wire's name
        self, request: admin_pb2.ReadRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[admin_pb2.ReadResponse, None]:
        self._access.reader(context)
        read = self._alone if asked_alone(context) else self._reader
        async for chunk in read(request.view, dict(request.query), request.limit):
            yield admin_pb2.ReadResponse(rows=chunk.rows, truncated=chunk.truncated)

    async def Metrics(  # noqa: N802  the wire's name
        self, _: admin_pb2.MetricsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> admin_pb2.MetricsResponse:
        self._access.reader(context)
        return admin_pb2.MetricsResponse(text=self._metrics(), worker=self._worker)
