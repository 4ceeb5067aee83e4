"""AdminService: the views over gRPC, and for whom."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
import msgspec
import pytest

from services.pilot.admin.service import AdminService
from services.pilot.admin.views import read
from services.pilot.api.access import Access
from tests.unit.pilot.mesh import REVIEWS, service_entry
from tests.unit.pilot_admin.world import World, running
from tests.unit.pilot_api.callers import ADMINISTRATOR, MIXER, TRUST_DOMAIN, WORKLOAD, Caller
from windward.api.admin.v1 import admin_pb2
from windward.rpc.errors import RefusedError


async def ask(world: World, who: str, **fields: Any) -> list[admin_pb2.ReadResponse]:
    service = AdminService(partial(read, world.observed), Access(TRUST_DOMAIN), lambda: b"text")
    context: Any = Caller(who)
    return [part async for part in service.Read(admin_pb2.ReadRequest(**fields), context)]


@pytest.mark.parametrize("who", [ADMINISTRATOR, MIXER])
async def test_the_administrator_and_the_control_plane_read(who):
    async with running() as world:
        await world.put(service_entry(), service_entry("ratings"))
        (part,) = await ask(world, who, view="services", query={"namespace": "shop"}, limit=1)
        assert part.truncated
        assert msgspec.json.decode(part.rows[0])["host"] < REVIEWS


@pytest.mark.parametrize(
    ("who", "code"), [(WORKLOAD, "PERMISSION_DENIED"), ("", "UNAUTHENTICATED")]
)
async def test_others_do_not(who, code):
    async with running() as world:
        with pytest.raises(RefusedError) as caught:
            await ask(world, who, view="services")
        assert caught.value.code is grpc.StatusCode[code]
