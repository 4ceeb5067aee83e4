"""Who may use Pilot's APIs."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from services.pilot.api.access import Access
from tests.unit.pilot_api.callers import ADMINISTRATOR, MIXER, TRUST_DOMAIN, WORKLOAD, Caller
from windward.rpc.errors import RefusedError

LOOK_ALIKES = [
    "spiffe://other.domain/ns/istio-system/sa/windward-admin",
    "spiffe://cluster.local/ns/shop/sa/windward-admin",
    "spiffe://cluster.local/ns/istio-system/sa/windward-admin/x",
    "spiffe://cluster.local/ns/istio-system/sa/Windward-admin",
]


def refused(method: Any, identity: str) -> grpc.StatusCode:
    context: Any = Caller(identity)
    with pytest.raises(RefusedError) as caught:
        method(context)
    return caught.value.code


@pytest.mark.parametrize("method", ["caller", "administrator", "reader"])
def test_nobody_is_let_in_without_a_certificate(method):
    access = Access(TRUST_DOMAIN)
    assert refused(getattr(access, method), "") is grpc.StatusCode.UNAUTHENTICATED


def test_the_administrator_may_do_everything():
    access, context = Access(TRUST_DOMAIN), Caller(ADMINISTRATOR)
    for method in (access.caller, access.administrator, access.reader):
        proved: Any = context
        assert str(method(proved)) == ADMINISTRATOR


def test_the_control_plane_reads_and_does_not_write():
    access = Access(TRUST_DOMAIN)
    context: Any = Caller(MIXER)
    assert str(access.reader(context)) == MIXER
    assert refused(access.administrator, MIXER) is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("identity", [WORKLOAD, *LOOK_ALIKES])
def test_workloads_and_look_alikes_neither_read_nor_write(identity):
    access = Access(TRUST_DOMAIN)
    assert refused(access.reader, identity) is grpc.StatusCode.PERMISSION_DENIED
    assert refused(access.administrator, identity) is grpc.StatusCode.PERMISSION_DENIED


def test_the_administrator_of_another_trust_domain_is_another():
    access = Access("other.domain")
    assert refused(access.administrator, ADMINISTRATOR) is grpc.StatusCode.PERMISSION_DENIED
