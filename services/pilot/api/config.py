"""windward.config.v1.ConfigService: objects in, findings or a revision out; and how far the proxies are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

import grpc
import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from services.pilot.api.access import Access, Everybody
from services.pilot.api.checking import checked
from services.pilot.api.objects import object_key, object_of, ref, ref_of
from services.pilot.api.progress import Progress
from services.pilot.api.users import Users
from services.pilot.credentials.credential import redacted
from services.pilot.siblings import Siblings, asked_alone, summed
from services.pilot.xds.connected import Connected, ConnectedProxies
from windward.api.config.v1 import config_pb2, config_pb2_grpc
from windward.config.changing import (
    Contested,
    NoSuchObject,
    change_objects,
    read_object,
    read_objects,
)
from windward.config.object import ConfigObject, ObjectKey
from windward.config.stored import Action, Author, Change, ObjectTooLarge, key_of
from windward.rpc.errors import RefusedError, invalid, not_found, unavailable
from windward.slices import Slices, Work, in_slices
from windward.store.errors import StoreError, TooLarge, Uncertain
from windward.store.keys import CONFIG
from windward.store.protocol import Entry, Store
from windward.telemetry.logging import get_logger
from windward.xds.resource import SECRET

log = get_logger()
MOST_REJECTIONS = 100
ACTIONS = {
    Action.CREATED: config_pb2.Applied.CREATED,
    Action.CONFIGURED: config_pb2.Applied.CONFIGURED,
    Action.UNCHANGED: config_pb2.Applied.UNCHANGED,
    Action.DELETED: config_pb2.Applied.DELETED,
}


class ConfigService(config_pb2_grpc.ConfigServiceServicer):
    def __init__(
        self,
        store: Store,
        access: Access | Everybody,
        connected: ConnectedProxies,
        pilot: str,
        progress: Progress | None = None,
        siblings: Siblings | None = None,
    ) -> None:
        self._store = store
        self._access = access
        self._connected = connected
        self._pilot = pilot
        self._progress = progress
        self._siblings = siblings or Siblings()

    # ---- changing ---------------------------------------------------------------------------------------------------

    async def Apply(  # noqa: N802  the wire's name
        self, request: config_pb2.ApplyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> config_pb2.ApplyResponse:
        caller = self._access.administrator(context)
        wanted, findings = await checked(request)
        if any(finding.severity == config_pb2.Finding.ERROR for finding in findings):
            return config_pb2.ApplyResponse(findings=findings)
        author = Author(str(caller), datetime.now(UTC), request.reason[:1000])
        applied, revision = await self._change(wanted, [], author)
        return config_pb2.ApplyResponse(applied=applied, findings=findings, revision=revision)

    async def Validate(  # noqa: N802  the wire's name
        self, request: config_pb2.ApplyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> config_pb2.ApplyResponse:
        self._access.reader(context)
        _, findings = await checked(request)
        return config_pb2.ApplyResponse(findings=findings)

    async def Delete(  # noqa: N802  the wire's name
        self, request: config_pb2.DeleteRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> config_pb2.DeleteResponse:
        caller = self._access.administrator(context)
        keys = list(dict.fromkeys(object_key(ref) for ref in request.refs))
        author = Author(str(caller), datetime.now(UTC), request.reason[:1000])
        applied, revision = await self._change([], keys, author)
        return config_pb2.DeleteResponse(applied=applied, revision=revision)

    async def _change(
        self, wanted: list[ConfigObject[Any]], removals: list[ObjectKey], author: Author
    ) -> tuple[list[config_pb2.Applied], int]:
        """Carry the change out; what can go wrong, as a status."""
        keys = [item.key for item in wanted] + removals
        if twice := [str(key) for key, count in Counter(keys).items() if count > 1]:
            raise invalid(f"named twice in one request: {', '.join(twice[:10])}")
        try:
            done = await change_objects(self._store, wanted, removals, author)
        except NoSuchObject as error:
            raise not_found(str(error)) from error
        except (ObjectTooLarge, TooLarge) as error:
            raise invalid(str(error)) from error
        except Contested as error:
            raise RefusedError(grpc.StatusCode.ABORTED, str(error)) from error
        except Uncertain as error:
            raise unavailable(f"the store's answer is missing: {error}") from error
        except StoreError as error:
            raise unavailable(str(error)) from error
        changed = [item.key for item in done.changes if item.action is not Action.UNCHANGED]
        if changed:
            log.info(
                "config.changed",
                who=author.who,
                objects=[str(key) for key in changed[:20]],
                count=len(changed),
                revision=done.revision,
            )
        return await in_slices(_applied(done.changes)), done.revision

    # ---- reading ----------------------------------------------------------------------------------------------------

    async def Get(  # noqa: N802  the wire's name
        self, request: config_pb2.GetRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> config_pb2.Object:
        self._access.reader(context)
        return await self._get(request.ref)

    async def _get(self, ref: config_pb2.ObjectRef) -> config_pb2.Object:
        key = object_key(ref)
        entry = await read_object(self._store, key)
        if entry is None:
            raise not_found(f"there is no {key}")
        return object_of(key, entry)

    async def List(  # noqa: N802  the wire's name
        self, request: config_pb2.ListRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> config_pb2.ListResponse:
        self._access.reader(context)
        prefix = CONFIG
        if request.group and request.kind:
            prefix += f"{request.group}/{request.kind}/"
            if request.namespace:
                prefix += f"{request.namespace}/"
        listing = await read_objects(self._store, prefix)
        found = await in_slices(_objects(listing.entries, request.namespace))
        return config_pb2.ListResponse(objects=found, revision=listing.revision)

    async def ListProxies(  # noqa: N802  the wire's name
        self, request: config_pb2.ListProxiesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> config_pb2.ListProxiesResponse:
        self._access.reader(context)
        others = await self._siblings.ask_config(
            lambda stub: stub.ListProxies, request, alone=asked_alone(context)
        )
        proxies = await in_slices(self._statuses())
        proxies += [proxy for answer in others.found for proxy in answer.proxies]
        return config_pb2.ListProxiesResponse(proxies=proxies, unanswered=others.unanswered)

    def _statuses(self) -> Work[list[config_pb2.ProxyStatus]]:
        made = []
        for item in self._connected:
            yield
            made.append(self._status(item))
        return made

    def _status(self, item: Connected) -> config_pb2.ProxyStatus:
        since = Timestamp()
        since.FromDatetime(item.since)
        types = {
            url: config_pb2.TypeStatus(
                sent_revision=state.sent_revision,
                acked_revision=item.accepted(state),
                resources=item.stream.count(url),
                last_error=state.last_error,
                state=state.state,
            )
            for url, state in item.stream.types.items()
        }
        return config_pb2.ProxyStatus(
            id=item.proxy.id,
            identity=str(item.proxy.identity or ""),
            pilot=self._pilot,
            connected_at=since,
            types=types,
            address=item.proxy.address,
        )

    async def GetProxyConfig(  # noqa: N802  the wire's name
        self, request: config_pb2.GetProxyConfigRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> config_pb2.GetProxyConfigResponse:
        self._access.reader(context)
        found = self._connected.find(request.proxy)
        if not found:
            others = await self._siblings.ask_config(
                lambda stub: stub.GetProxyConfig, request, alone=asked_alone(context)
            )
            if others.found:
                return others.found[0]
            raise not_found(
                f"no proxy {request.proxy!r} is connected here; see `windward proxy status`"
            )
        if len(found) > 1:
            names = ", ".join(sorted(item.proxy.id for item in found))
            raise invalid(f"{request.proxy!r} names several proxies: {names}")
        resources = await in_slices(_resources(found[0], set(request.type_urls)))
        return config_pb2.GetProxyConfigResponse(resources=resources)

    async def GetObjectStatus(  # noqa: N802  the wire's name
        self, request: config_pb2.GetRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> config_pb2.ObjectStatus:
        self._access.reader(context)
        stored = await self._get(request.ref)
        key = object_key(request.ref)
        users, slices = Users(key), Slices()
        proxies = acked = 0
        rejections = []
        for item in self._connected:
            if slices.over:
                await slices.pause()
            stream = item.stream
            mine = users.of(stream)
            if not mine:
                continue
            proxies += 1
            acked += all(stream.accepted(r.type_url, r.name) == r.version for r in mine)
            rejections += [
                f"{item.proxy.id}: {r.name}: {refusal.error}"
                for r in mine
                if (refusal := stream.types[r.type_url].refused.get(r.name))
                and refusal.version == r.version
            ]
        status = config_pb2.ObjectStatus(
            object=stored, proxies=proxies, acked=acked, rejections=rejections[:MOST_REJECTIONS]
        )
        if self._progress is not None:
            self._progress.add_to(status, key)
        others = await self._siblings.ask_config(
            lambda stub: stub.GetObjectStatus, request, alone=asked_alone(context)
        )
        status.unanswered.extend(others.unanswered)
        return summed(status, others.found)


def _resources(
    item: Connected, types: AbstractSet[str]
) -> Work[list[config_pb2.GetProxyConfigResponse.Resource]]:
    """Everything that a proxy should have and has asked for; of these types, if any are named."""
    stream, made = item.stream, []
    for url in [url for url in stream.types if not types or url in types]:
        for name in stream.wanted(url):
            yield
            resource = stream.current.get(url, name)
            if resource is None:
                continue  # gone meanwhile
            made.append(
                config_pb2.GetProxyConfigResponse.Resource(
                    type_url=url,
                    name=resource.name,
                    version=resource.version,
                    body=redacted(resource.body) if url == SECRET else resource.body,
                    origins=[ref(o.group, o.kind, o.namespace, o.name) for o in resource.origins],
                    acked=stream.accepted(url, name) == resource.version,
                )
            )
    return made


def _objects(entries: Iterable[Entry], namespace: str) -> Work[list[config_pb2.Object]]:
    """What can be read of them, in a namespace or in all."""
    found = []
    for entry in entries:
        yield
        key = key_of(entry.key)
        if key is None or (namespace and key.namespace != namespace):
            continue
        try:
            found.append(object_of(key, entry))
        except msgspec.DecodeError as error:
            log.warning("config.unreadable", object=str(key), reason=str(error))
    return found


def _applied(changes: Iterable[Change]) -> Work[list[config_pb2.Applied]]:
    made = []
    for change in changes:
        yield
        made.append(
            config_pb2.Applied(
                ref=ref_of(change.key),
                action=ACTIONS[change.action],
                generation=change.generation,
            )
        )
    return made
