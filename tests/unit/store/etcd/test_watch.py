"""The rules of a watch, each against a server that breaks off, repeats, fragments or changes its identity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.store.etcd.scripted import delete_event, header, put_event, serving
from windward.api.store.v1 import etcd_pb2 as wire
from windward.store.errors import Compacted, Denied, StoreReset
from windward.store.etcd.store import EtcdStore, entry_of
from windward.store.etcd.watch import _deliver, _Position
from windward.store.protocol import Batch, Deleted, Put

WATCH = "/etcdserverpb.Watch/Watch"
Script = list[wire.WatchResponse | None]


class Watched:
    """Answers each stream with the next script; None breaks the stream off, the end of a script keeps it open."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self.creates: list[wire.WatchCreateRequest] = []
        self.metadata: list[dict[str, Any]] = []

    async def __call__(
        self, requests: AsyncIterator[wire.WatchRequest], context: Any
    ) -> AsyncIterator[wire.WatchResponse]:
        request = await anext(requests)
        self.creates.append(request.create_request)
        self.metadata.append(dict(context.invocation_metadata()))
        script = self._scripts.pop(0) if self._scripts else []
        yield wire.WatchResponse(header=header(100, script_cluster(script)), created=True)
        for response in script:
            if response is None:
                return
            yield response
        await asyncio.Event().wait()


def script_cluster(script: Script) -> int:
    first = next((response for response in script if response is not None), None)
    return first.header.cluster_id if first is not None else 1


def events(
    *made: wire.Event, revision: int = 100, cluster: int = 1, fragment: bool = False
) -> wire.WatchResponse:
    return wire.WatchResponse(header=header(revision, cluster), events=made, fragment=fragment)


def cancelled(reason: str = "", compact_revision: int = 0) -> wire.WatchResponse:
    return wire.WatchResponse(
        header=header(100), canceled=True, cancel_reason=reason, compact_revision=compact_revision
    )


@pytest.fixture
async def watch_of() -> AsyncIterator[Callable[..., Any]]:
    """A function that serves scripts and reads a number of batches of a watch from revision 5 on."""
    async with AsyncExitStack() as stack:

        async def read(watched: Watched, count: int) -> list[Batch]:
            address = await stack.enter_async_context(serving(streams={WATCH: watched}))
            store = EtcdStore([address])
            stack.push_async_callback(store.close)
            batches = store.watch("/w/", from_revision=5)
            async with asyncio.timeout(20):
                found = [await anext(batches) for _ in range(count)]
            await batches.aclose()
            return found

        yield read


def keys_of(batches: list[Batch]) -> list[str]:
    return [
        change.entry.key if isinstance(change, Put) else f"-{change.key}"
        for batch in batches
        for change in batch.changes
    ]


async def test_it_asks_for_the_prefix_with_fragments_and_a_leader(watch_of: Callable[..., Any]):
    watched = Watched([events(put_event("/w/a", 7))])
    await watch_of(watched, 1)
    (create,) = watched.creates
    assert (create.key, create.range_end, create.start_revision) == (b"/w/", b"/w0", 5)
    assert create.fragment
    assert watched.metadata[0]["hasleader"] == "true"


async def test_it_resumes_behind_the_last_event_not_behind_the_header(watch_of: Callable[..., Any]):
    watched = Watched(
        [events(put_event("/w/a", 7), revision=5000), None],
        [events(put_event("/w/b", 8), delete_event("/w/a", 9), revision=5000)],
    )
    batches = await watch_of(watched, 2)
    assert keys_of(batches) == ["/w/a", "/w/b", "-/w/a"]
    assert [create.start_revision for create in watched.creates] == [5, 8]
    assert [batch.revision for batch in batches] == [7, 9]


async def test_a_stream_that_broke_before_its_first_event_begins_again(
    watch_of: Callable[..., Any],
):
    watched = Watched([None], [events(put_event("/w/a", 7))])
    assert keys_of(await watch_of(watched, 1)) == ["/w/a"]
    assert [create.start_revision for create in watched.creates] == [5, 5]


async def test_progress_alone_never_moves_the_resume_point(watch_of: Callable[..., Any]):
    watched = Watched([events(revision=900), None], [events(put_event("/w/a", 7), revision=900)])
    assert keys_of(await watch_of(watched, 1)) == ["/w/a"]
    assert watched.creates[1].start_revision == 5


async def test_fragments_are_joined(watch_of: Callable[..., Any]):
    watched = Watched(
        [
            events(put_event("/w/a", 7), fragment=True),
            events(put_event("/w/b", 7), fragment=True),
            events(put_event("/w/c", 7)),
        ]
    )
    (batch,) = await watch_of(watched, 1)
    assert keys_of([batch]) == ["/w/a", "/w/b", "/w/c"]


async def test_half_a_revision_is_not_delivered_and_comes_whole_later(watch_of: Callable[..., Any]):
    both = (put_event("/w/a", 7), put_event("/w/b", 7))
    watched = Watched([events(both[0], fragment=True), None], [events(*both)])
    batches = await watch_of(watched, 1)
    assert keys_of(batches) == ["/w/a", "/w/b"]
    assert watched.creates[1].start_revision == 5


async def test_what_was_delivered_is_not_delivered_again(watch_of: Callable[..., Any]):
    watched = Watched(
        [events(put_event("/w/a", 7)), None],
        [events(put_event("/w/a", 7)), events(put_event("/w/a", 7), put_event("/w/b", 8))],
    )
    assert keys_of(await watch_of(watched, 2)) == ["/w/a", "/w/b"]


async def test_compacted_history_is_said_with_its_revision(watch_of: Callable[..., Any]):
    with pytest.raises(Compacted) as caught:
        await watch_of(Watched([cancelled(compact_revision=60)]), 1)
    assert caught.value.revision == 60


async def test_a_refused_watch_is_said(watch_of: Callable[..., Any]):
    with pytest.raises(Denied, match="permission denied"):
        await watch_of(Watched([cancelled("etcdserver: permission denied")]), 1)


async def test_a_watch_cancelled_for_no_good_reason_begins_again(watch_of: Callable[..., Any]):
    watched = Watched([cancelled("etcdserver: no leader")], [events(put_event("/w/a", 7))])
    assert keys_of(await watch_of(watched, 1)) == ["/w/a"]


async def test_another_cluster_at_the_address_is_a_reset(watch_of: Callable[..., Any]):
    watched = Watched(
        [events(put_event("/w/a", 7)), None], [events(put_event("/w/b", 8), cluster=2)]
    )
    with pytest.raises(StoreReset, match="another"):
        await watch_of(watched, 2)


async def test_a_server_that_fell_back_is_a_reset(watch_of: Callable[..., Any]):
    watched = Watched([events(put_event("/w/a", 700), revision=700), None], [])
    with pytest.raises(StoreReset, match="behind 700"):
        await watch_of(watched, 2)


async def test_an_answer_that_events_overtook_is_no_reset(watch_of: Callable[..., Any]):
    """A stopped server that resumes: the progress asked for before the event is told after it."""
    overtaken = wire.WatchResponse(header=header(51))
    watched = Watched(
        [events(put_event("/w/a", 52), revision=52), overtaken, events(put_event("/w/b", 53))]
    )
    assert keys_of(await watch_of(watched, 2)) == ["/w/a", "/w/b"]
    assert len(watched.creates) == 1


async def test_a_stale_token_is_replaced_and_the_watch_goes_on():
    tokens = iter(["old", "new"])

    async def authenticate(_: Any, __: Any) -> wire.AuthenticateResponse:
        return wire.AuthenticateResponse(token=next(tokens))

    reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
    watched = Watched([cancelled(reason)], [events(put_event("/w/a", 7))])
    unary = {"/etcdserverpb.Auth/Authenticate": authenticate}
    async with serving(unary, {WATCH: watched}) as address, asyncio.timeout(20):
        store = EtcdStore([address], user="pilot", password="secret")
        batches = store.watch("/w/", from_revision=5)
        assert keys_of([await anext(batches)]) == ["/w/a"]
        await batches.aclose()
        await store.close()
    assert [metadata["token"] for metadata in watched.metadata] == ["old", "new"]


async def test_a_silent_server_is_left_for_the_next_one():
    async def silent(requests: AsyncIterator[Any], _: Any) -> AsyncIterator[wire.WatchResponse]:
        async for request in requests:
            asked.append(request)
        yield wire.WatchResponse()

    asked: list[wire.WatchRequest] = []
    healthy = Watched([events(put_event("/w/a", 7))])
    async with (
        serving(streams={WATCH: silent}) as hung,
        serving(streams={WATCH: healthy}) as other,
        asyncio.timeout(30),
    ):
        store = EtcdStore([hung, other])
        batches = store.watch("/w/", from_revision=5)
        assert keys_of([await anext(batches)]) == ["/w/a"]
        await batches.aclose()
        await store.close()
    kinds = [request.WhichOneof("request_union") for request in asked]
    assert kinds[0] == "create_request"
    assert set(kinds[1:]) == {"progress_request"}


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=12),
    st.lists(st.integers(0, 12), max_size=6),
)
def test_any_overlapping_replays_deliver_each_event_once_in_order(
    history: list[tuple[str, bool]], restarts: list[int]
):
    made = [
        put_event(key, revision) if put else delete_event(key, revision)
        for revision, (key, put) in enumerate(history, start=5)
    ]
    position = _Position(5)
    delivered: list[int] = []
    for start in [*restarts, 0]:
        begin = min(start, position.next_revision - 5)
        batch = _deliver(made[begin : begin + max(start, 1)] or made[-1:], position, entry_of)
        if batch is not None:
            delivered += [_revision(change) for change in batch.changes]
    batch = _deliver(made, position, entry_of)
    if batch is not None:
        delivered += [_revision(change) for change in batch.changes]
    assert sorted(set(delivered)) == delivered
    assert position.next_revision == 5 + len(history)


def _revision(change: Put | Deleted) -> int:
    return change.entry.mod_revision if isinstance(change, Put) else change.revision
