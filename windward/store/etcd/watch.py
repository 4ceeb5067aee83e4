"""Watching a prefix through everything that happens to etcd: nothing lost, nothing twice, whole revisions only.

The rules (each is a test in tests/fault/test_store_etcd.py):
1. Resume from the last event's ``mod_revision + 1``, never from a header's revision: while a server catches up, its
   headers already carry the newest revision. Only a progress notification that the server sent unasked may advance
   the resume point; the answer to a *requested* one must not (etcd fixed that in 3.4.25 and 3.5.8).
2. Fragments of one revision are joined before they are delivered.
3. A hung server acknowledges TCP for ever: a progress request goes out every two seconds, and silence means it hangs.
4. Events at or below the last delivered revision are dropped.
5. Another cluster id, or a watch that is created behind what was seen, means another store: StoreReset. Within a stream
   headers do run backwards: the answer to a progress request may be overtaken by an event (a stopped server that resumes).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any

import grpc

from windward.api.store.v1 import etcd_pb2 as wire
from windward.store.errors import Compacted, Denied, StoreReset
from windward.store.etcd.connection import Connection, Interrupted
from windward.store.protocol import Batch, Change, Deleted, Entry, Put

HEARTBEAT_S = 2.0
SILENCE_S = 5.0
EntryOf = Callable[[wire.KeyValue], Entry]


async def watch_prefix(
    connection: Connection, prefix: str, from_revision: int, entry_of: EntryOf
) -> AsyncGenerator[Batch, None]:
    """Batches from a revision on, for ever. Raises Compacted, StoreReset or Denied."""
    state = _Position(from_revision)
    pause_s = 0.05
    while True:
        endpoint = connection.endpoint
        try:
            async for batch in _one_stream(connection, prefix, state, entry_of):
                pause_s = 0.05
                yield batch
        except (Interrupted, grpc.aio.AioRpcError, TimeoutError):
            connection.rotate(endpoint)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
        pause_s = min(pause_s * 2, 2.0)


class _Position:
    """How far a watch has come. Invariant: everything below ``next_revision`` has been delivered."""

    def __init__(self, from_revision: int) -> None:
        self.next_revision = from_revision
        self.cluster_id = 0

    def check(self, header: wire.ResponseHeader, *, created: bool) -> None:
        if self.cluster_id and header.cluster_id != self.cluster_id:
            raise StoreReset("another etcd cluster answers at this address")
        self.cluster_id = header.cluster_id
        if created and header.revision and header.revision < self.next_revision - 1:
            raise StoreReset(
                f"etcd is at revision {header.revision}, behind {self.next_revision - 1} that was seen already"
            )


async def _one_stream(
    connection: Connection, prefix: str, state: _Position, entry_of: EntryOf
) -> AsyncGenerator[Batch, None]:
    from windward.store.etcd.store import range_end

    metadata = await connection.metadata()
    stream = connection.channel().stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=wire.WatchRequest.SerializeToString,
        response_deserializer=wire.WatchResponse.FromString,
    )(metadata=metadata)
    create = wire.WatchCreateRequest(
        key=prefix.encode(),
        range_end=range_end(prefix.encode()),
        start_revision=state.next_revision,
        progress_notify=True,
        fragment=True,
    )
    heart = asyncio.create_task(_beat(stream))
    pending: list[wire.Event] = []
    try:
        async with asyncio.timeout(SILENCE_S):
            await stream.write(wire.WatchRequest(create_request=create))
        while True:
            async with asyncio.timeout(SILENCE_S):
                response: Any = await stream.read()
            if response is grpc.aio.EOF:
                raise Interrupted
            if response.canceled:
                await _raise_cancelled(connection, response)
            state.check(response.header, created=response.created)
            pending += response.events
            if response.fragment or not pending:
                continue
            batch = _deliver(pending, state, entry_of)
            pending = []
            if batch is not None:
                yield batch
    finally:
        heart.cancel()
        with suppress(asyncio.CancelledError):
            await heart
        stream.cancel()


async def _beat(stream: Any) -> None:
    """Ask for progress now and then; the answer shows that the server lives."""
    request = wire.WatchRequest(progress_request=wire.WatchProgressRequest())
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await stream.write(request)


async def _raise_cancelled(connection: Connection, response: wire.WatchResponse) -> None:
    """What a cancelled watch means; stale tokens come this way, not as a status."""
    if response.compact_revision:
        raise Compacted(response.compact_revision)
    reason = response.cancel_reason
    if "invalid auth token" in reason or "Unauthenticated" in reason:
        await connection.log_in()
        raise Interrupted(reason)
    if "permission denied" in reason:
        raise Denied(f"etcd refuses the watch: {reason}")
    raise Interrupted(reason)


def _deliver(events: list[wire.Event], state: _Position, entry_of: EntryOf) -> Batch | None:
    """The events not seen before, as one batch; moves the position behind them."""
    changes: list[Change] = []
    for event in events:
        if event.kv.mod_revision < state.next_revision:
            continue
        if event.type == wire.Event.DELETE:
            changes.append(Deleted(event.kv.key.decode(), event.kv.mod_revision))
        else:
            changes.append(Put(entry_of(event.kv)))
    last = events[-1].kv.mod_revision
    if last >= state.next_revision:
        state.next_revision = last + 1
    return Batch(tuple(changes), last) if changes else None
