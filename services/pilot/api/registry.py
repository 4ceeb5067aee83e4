"""windward.registry.v1.RegistryService: agents register the workloads they run beside, each on a lease of its own.

The lease is the agent's, not this Pilot's: any Pilot grants, renews and re-claims it by the id that the agent carries.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from services.pilot.api.access import Access
from services.pilot.api.claims import Claim, Claims
from services.pilot.api.probe import readiness_probe
from windward import registration
from windward.api.registry.v1 import registry_pb2, registry_pb2_grpc
from windward.config.hosts import is_dns_label
from windward.config.stored import decode_stored
from windward.config.workload_group import WorkloadGroup
from windward.identity.spiffe_id import SpiffeId
from windward.registration import RegisteredWorkload
from windward.rpc.errors import RefusedError, denied, invalid, not_found
from windward.store.errors import Conflict, LeaseLost
from windward.store.keys import (
    ENDPOINTS,
    REGISTRATIONS,
    config_key,
    endpoint_key,
    endpoint_lease_key,
)
from windward.store.protocol import Entry, Remove, Store, Transaction, Unchanged, Write
from windward.telemetry.logging import get_logger

log = get_logger()
ATTEMPTS = 5
AT_ONCE = 32
"""Registrations under way; the others wait in line. When a thousand agents come at once, each of them would otherwise be so
slow that all give up, and come again."""
MOST_LABELS = 64


class RegistryService(registry_pb2_grpc.RegistryServiceServicer):
    def __init__(
        self,
        store: Store,
        access: Access,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._access = access
        self._ttl_s = ttl_s
        self._clock = clock
        self._claims = Claims(ttl_s)
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def Register(  # noqa: N802  the wire's name
        self, request: registry_pb2.RegisterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> registry_pb2.RegisterResponse:
        caller = self._access.caller(context)
        claim = self._claims.last(caller, request)
        if claim is not None:
            try:
                await self._store.keep_alive(request.lease_id)
            except LeaseLost:
                async with self._gate:
                    again = await self._reclaim(caller, request, claim)
                if again is not None:
                    return again
            else:
                if self._clock() < claim.until_s:
                    return claim.answer
        async with self._gate:
            return await self._register(caller, request)

    async def _reclaim(
        self, caller: SpiffeId, request: registry_pb2.RegisterRequest, claim: Claim
    ) -> registry_pb2.RegisterResponse | None:
        """A new lease for a record that is as it was; None where it is not. The next renewal looks at everything."""
        key, beside = _keys(request.workload.namespace, request.workload.name)
        lease = (await self._store.grant(self._ttl_s)).id
        conditions = (Unchanged(key, claim.answer.revision), Unchanged(beside, 0))
        try:
            await self._store.commit(Transaction((Write(beside, b"", lease),), conditions))
        except (Conflict, LeaseLost):
            return None
        answer = registry_pb2.RegisterResponse()
        answer.CopyFrom(claim.answer)
        answer.lease_id = lease
        self._claims.checked(caller, request, answer, self._clock(), holds_s=0.0)
        return answer

    async def _register(
        self, caller: SpiffeId, request: registry_pb2.RegisterRequest
    ) -> registry_pb2.RegisterResponse:
        workload, group = await self._record(request.workload)
        if caller.workload != (workload.namespace, workload.service_account):
            raise denied(
                f"{caller} may not register {workload.namespace}/{workload.name}, which runs as "
                f"{workload.service_account}"
            )
        lease = await self._living(request.lease_id, workload)
        for _ in range(ATTEMPTS):
            try:
                revision = await self._claim(workload, lease)
            except Conflict:
                continue
            except LeaseLost:
                lease = await self._living(0, workload)
                continue
            ttl = Duration()
            ttl.FromMilliseconds(int(self._ttl_s * 1000))
            answer = registry_pb2.RegisterResponse(
                lease_id=lease,
                ttl=ttl,
                revision=revision,
                readiness_probe=readiness_probe(group.probe) if group.probe else None,
            )
            self._claims.checked(caller, request, answer, self._clock())
            return answer
        raise RefusedError(
            grpc.StatusCode.ABORTED, "the registration is being changed by somebody else"
        )

    async def _living(self, lease: int, workload: RegisteredWorkload) -> int:
        """The lease that the agent carries, renewed, whichever Pilot granted it; a new one where it has lapsed."""
        if lease:
            try:
                await self._store.keep_alive(lease)
            except LeaseLost:
                log.info("registry.reclaimed", workload=f"{workload.namespace}/{workload.name}")
            else:
                return lease
        return (await self._store.grant(self._ttl_s)).id

    async def _claim(self, workload: RegisteredWorkload, lease: int) -> int:
        """Have the record say this and its lease be this one, writing only what differs; the record's revision."""
        key, beside = _keys(workload.namespace, workload.name)
        value = registration.encode(workload)
        entry, held = await asyncio.gather(self._store.get(key), self._store.get(beside))
        writes = []
        if entry is None or entry.value != value:
            writes.append(Write(key, value))
        if held is None or held.lease != lease:
            writes.append(Write(beside, b"", lease))
        conditions = (_as_read(key, entry), _as_read(beside, held))
        if writes:
            revision = await self._store.commit(Transaction(tuple(writes), conditions))
        return revision if entry is None or entry.value != value else entry.mod_revision

    async def _record(
        self, given: registry_pb2.Workload
    ) -> tuple[RegisteredWorkload, WorkloadGroup]:
        """The workload with its group's template applied, and the group. Refuses what is not registrable."""
        for field, text in (("namespace", given.namespace), ("name", given.name)):
            if not is_dns_label(text):
                raise invalid(f"workload.{field}: must be a DNS label, is {text[:80]!r}")
        try:
            ipaddress.ip_address(given.address)
        except ValueError as error:
            raise invalid(
                f"workload.address: {given.address[:80]!r} is not an IP address"
            ) from error
        if "%" in given.address:
            raise invalid(
                f"workload.address: {given.address[:80]!r} has a zone, which no other machine knows"
            )
        if any(not 1 <= number <= 65535 for number in given.ports.values()):
            raise invalid("workload.ports: must be between 1 and 65535")
        if len(given.labels) > MOST_LABELS or len(given.ports) > MOST_LABELS:
            raise invalid(f"workload: more than {MOST_LABELS} labels or ports")
        group = await self._group(given.namespace, given.workload_group)
        template = group.template
        assert template is not None, "validation requires a template"
        labels = {
            **template.labels,
            **(group.metadata.labels if group.metadata else {}),
            **given.labels,
        }
        made = RegisteredWorkload(
            namespace=given.namespace,
            name=given.name,
            address=given.address,
            workload_group=given.workload_group,
            service_account=template.service_account or "default",
            labels=labels,
            ports={**template.ports, **given.ports},
            locality=given.locality or template.locality,
            network=given.network,
            weight=given.weight or template.weight or 1,
            unhealthy=given.unhealthy,
        )
        return made, group

    async def _group(self, namespace: str, name: str) -> WorkloadGroup:
        if not is_dns_label(name):
            raise invalid("workload.workload_group: must name a WorkloadGroup")
        entry = await self._store.get(
            config_key("networking.istio.io", "WorkloadGroup", namespace, name)
        )
        made = decode_stored(entry)[0] if entry else None
        if made is None:
            raise not_found(f"there is no WorkloadGroup {namespace}/{name}: apply one first")
        spec: WorkloadGroup = made.spec
        return spec

    async def Deregister(  # noqa: N802  the wire's name
        self, request: registry_pb2.DeregisterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> registry_pb2.DeregisterResponse:
        caller = self._access.caller(context)
        self._claims.forget(request.namespace, request.name)
        key, beside = _keys(request.namespace, request.name)
        for _ in range(ATTEMPTS):
            entry, held = await asyncio.gather(self._store.get(key), self._store.get(beside))
            if entry is None or (held and request.lease_id and held.lease != request.lease_id):
                return registry_pb2.DeregisterResponse()
            workload = registration.decode(entry.value)
            if caller.workload != (workload.namespace, workload.service_account):
                raise denied(f"{caller} may not deregister {workload.namespace}/{workload.name}")
            conditions = (_as_read(key, entry), _as_read(beside, held))
            try:
                await self._store.commit(Transaction((Remove(key), Remove(beside)), conditions))
            except Conflict:
                continue
            if held is not None:
                await self._store.revoke(held.lease)
            return registry_pb2.DeregisterResponse()
        raise RefusedError(
            grpc.StatusCode.ABORTED, "the registration is being changed by somebody else"
        )

    async def ListWorkloads(  # noqa: N802  the wire's name
        self,
        request: registry_pb2.ListWorkloadsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> registry_pb2.ListWorkloadsResponse:
        self._access.reader(context)
        listing = await self._store.list(REGISTRATIONS)
        leased = {entry.key for entry in listing.entries if entry.lease}
        records = [entry for entry in listing.entries if entry.key.startswith(ENDPOINTS)]
        found = [
            item
            for item in (registration.decode(entry.value) for entry in records)
            if request.namespace in {"", item.namespace}
        ]
        return registry_pb2.ListWorkloadsResponse(
            workloads=[
                registry_pb2.Workload(
                    namespace=item.namespace,
                    name=item.name,
                    address=item.address,
                    workload_group=item.workload_group,
                    labels=item.labels,
                    locality=item.locality,
                    network=item.network,
                    weight=item.weight,
                    unhealthy=item.unhealthy
                    or endpoint_lease_key(item.namespace, item.name) not in leased,
                    ports=item.ports,
                    service_account=item.service_account,
                )
                for item in found
            ]
        )


def _keys(namespace: str, name: str) -> tuple[str, str]:
    """Where the record lies, and where its lease is held."""
    return endpoint_key(namespace, name), endpoint_lease_key(namespace, name)


def _as_read(key: str, entry: Entry | None) -> Unchanged:
    return Unchanged(key, entry.mod_revision if entry else 0)
