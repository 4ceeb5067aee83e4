"""windward.admin.v1.AdminService: the views over gRPC, for those who may read configuration."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import grpc

from services.pilot.admin.observed import Observed
from services.pilot.admin.views import read
from services.pilot.api.access import Access
from windward.api.admin.v1 import admin_pb2, admin_pb2_grpc


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    def __init__(self, observed: Observed, access: Access) -> None:
        self._observed = observed
        self._access = access

    async def Read(  # noqa: N802  the wire's name
        self, request: admin_pb2.ReadRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[admin_pb2.ReadResponse, None]:
        self._access.reader(context)
        async for chunk in read(self._observed, request.view, dict(request.query), request.limit):
            yield admin_pb2.ReadResponse(rows=chunk.rows, truncated=chunk.truncated)
