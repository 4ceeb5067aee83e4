"""windward.config.v1.ConfigService: objects in, findings or a revision out; and how far the proxies are."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any

import grpc
import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from services.pilot.api.access import Access, Everybody
from services.pilot.api.progress import Progress
from services.pilot.credentials.credential import redacted
from services.pilot.siblings import DEADLINE_S, Siblings, asked_alone, summed
from services.pilot.xds.connected import Connected, ConnectedProxies
from services.pilot.xds.requests import AnyStream
from windward.api.config.v1 import config_pb2, config_pb2_grpc
from windward.config.changing import (
    FEW,
    Contested,
    NoSuchObject,
    change_objects,
    read_object,
    read_objects,
)
from windward.config.decode import decode_object
from windward.config.finding import Finding, Severity
from windward.config.object import ConfigObject, ObjectKey
from windward.config.stored import Action, Author, Change, ObjectTooLarge, StoredObject, key_of
from windward.records import read_json
from windward.rpc.errors import RefusedError, invalid, not_found, unavailable
from windward.slices import Slices, Work, in_slices
from windward.store.errors import StoreError, TooLarge, Uncertain
from windward.store.keys import CONFIG
from windward.store.protocol import Entry, Store
from windward.telemetry.logging import get_logger
from windward.xds.resource import SECRET, Resource

log = get_logger()
MOST_REJECTIONS = 100
ACTIONS = {
    Action.CREATED: config_pb2.Applied.CREATED,
    Action.CONFIGURED: config_pb2.Applied.CONFIGURED,
    Action.UNCHANGED: config_pb2.Applied.UNCHANGED,
    Action.DELETED: config_pb2.Applied.DELETED,
}
SEVERITIES = {
    Severity.ERROR: config_pb2.Finding.ERROR,
    Severity.WARNING: config_pb2.Finding.WARNING,
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
        self, _: config_pb2.ListProxiesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> config_pb2.ListProxiesResponse:
        self._access.reader(context)
        request = config_pb2.ListProxiesRequest()
        others = await self._siblings.ask_config(
            lambda stub, how: stub.ListProxies(request, timeout=DEADLINE_S, metadata=how),
            alone=asked_alone(context),
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
                lambda stub, how: stub.GetProxyConfig(request, timeout=DEADLINE_S, metadata=how),
                alone=asked_alone(context),
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
            lambda stub, how: stub.GetObjectStatus(request, timeout=DEADLINE_S, metadata=how),
            alone=asked_alone(context),
        )
        status.unanswered.extend(others.unanswered)
        return summed(status, others.found)


class Users:
    """The resources that an object is an origin of; each map of resources is searched once, however many streams share it."""

    def __init__(self, key: ObjectKey) -> None:
        self._key = key
        self._found: dict[int, tuple[Mapping[str, Resource], tuple[str, ...]]] = {}

    def of(self, stream: AnyStream) -> list[Resource]:
        """Those that a client should have and has asked for."""
        found = []
        for url, state in stream.types.items():
            names = {
                name
                for layer in stream.current.layers
                if (named := layer.get(url))
                for name in self._in(named)
                if state.subscription.wants(name)
            }
            for name in sorted(names):
                resource = stream.current.get(url, name)
                if resource is not None and uses(resource, self._key):
                    found.append(resource)
        return found

    def _in(self, named: Mapping[str, Resource]) -> tuple[str, ...]:
        known = self._found.get(id(named))
        if known is None:
            names = tuple(name for name, item in named.items() if uses(item, self._key))
            known = self._found[id(named)] = (named, names)
        return known[1]


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


def uses(resource: Resource, key: ObjectKey) -> bool:
    return any(
        (o.group, o.kind, o.namespace, o.name) == (key.group, key.kind, key.namespace, key.name)
        for o in resource.origins
    )


async def checked(
    request: config_pb2.ApplyRequest,
) -> tuple[list[ConfigObject[Any]], list[config_pb2.Finding]]:
    """As ``check``; many objects beside the event loop, so that streams do not wait for them."""
    if len(request.objects) <= FEW:
        return check(request)
    return await asyncio.to_thread(check, request)


def check(
    request: config_pb2.ApplyRequest,
) -> tuple[list[ConfigObject[Any]], list[config_pb2.Finding]]:
    """Decode every object of a request; all findings of all of them."""
    wanted: list[ConfigObject[Any]] = []
    findings: list[config_pb2.Finding] = []
    not_an_object: tuple[Finding, ...] = (Finding("", "not-readable", "must be a JSON object"),)
    for index, given in enumerate(request.objects):
        raw = _load(given.json)
        if raw is None:
            made, found = None, not_an_object
        else:
            made, found = decode_object(
                raw, default_namespace=request.default_namespace or "default"
            )
        findings += [
            _finding(item, given, raw or {}, request.default_namespace, index) for item in found
        ]
        if made is not None:
            wanted.append(made)
    return wanted, findings


def _load(text: bytes) -> dict[str, Any] | None:
    try:
        return read_json(text, dict[str, Any])
    except msgspec.DecodeError:
        return None


def _finding(
    item: Finding, given: config_pb2.ObjectInput, raw: Mapping[str, Any], namespace: str, index: int
) -> config_pb2.Finding:
    metadata = raw.get("metadata")
    named: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    group = str(raw.get("apiVersion", "")).partition("/")[0]
    return config_pb2.Finding(
        file=given.file,
        line=line_of(given.lines, item.path),
        ref=ref(
            group,
            str(raw.get("kind", "")),
            str(named.get("namespace") or namespace or "default"),
            str(named.get("name", "")),
        ),
        path=item.path,
        severity=SEVERITIES[item.severity],
        code=item.code,
        message=item.message,
        fix=item.fix,
        object_index=index,
    )


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


def line_of(lines: Mapping[str, int], path: str) -> int:
    """The line of a field, or of the nearest one around it."""
    while path:
        if path in lines:
            return lines[path]
        cut = max(path.rfind("."), path.rfind("["))
        path = path[:cut] if cut > 0 else ""
    return lines.get("", 0)


def ref(group: str, kind: str, namespace: str, name: str) -> config_pb2.ObjectRef:
    return config_pb2.ObjectRef(group=group, kind=kind, namespace=namespace, name=name)


def ref_of(key: ObjectKey) -> config_pb2.ObjectRef:
    return ref(key.group, key.kind, key.namespace, key.name)


def object_key(given: config_pb2.ObjectRef) -> ObjectKey:
    parts = (given.group, given.kind, given.namespace, given.name)
    if not all(parts) or any("/" in part for part in parts):
        raise invalid("an object is named by group, kind, namespace and name")
    return ObjectKey(*parts)


def object_of(key: ObjectKey, entry: Entry) -> config_pb2.Object:
    stored = read_json(entry.value, StoredObject)
    created = Timestamp()
    created.FromDatetime(stored.created_at)
    return config_pb2.Object(
        ref=ref_of(key),
        json=json.dumps(stored.object).encode(),
        revision=entry.mod_revision,
        generation=stored.generation,
        created_at=created,
    )
