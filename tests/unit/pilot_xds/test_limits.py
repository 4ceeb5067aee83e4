"""What one Pilot takes on: how many streams, for how long, and how many of them at once."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import AsyncExitStack
from datetime import timedelta

import grpc
import pytest

from services.pilot.xds.limits import Limits
from services.pilot.xds.requests import SERVICES
from tests.unit.pilot_xds.streams import IDENTITY, Ads, FakeCall, a_certificate
from tests.unit.pilot_xds.test_server import a_node, first_request
from tests.unit.xds.meshes import a_resource, a_set, names
from windward.rpc.errors import RefusedError
from windward.xds.resource import CLUSTER, ENDPOINT, LISTENER


async def test_one_stream_too_many_is_told_to_go_elsewhere():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")), Limits(streams=1))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        async with ads.delta() as other:
            other.send(node=a_node(), type_url=CLUSTER)
            with pytest.raises(RefusedError) as caught:
                await other.next()
            assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    async with ads.delta() as again:
        again.send(node=a_node(), type_url=CLUSTER)
        assert await again.next() is not None


async def test_one_identity_cannot_take_the_streams_of_others():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")), Limits(streams_per_identity=1))
    async with ads.delta(FakeCall(IDENTITY)) as call, ads.delta() as nobody:
        for one in (call, nobody):
            one.send(node=a_node(), type_url=CLUSTER)
            await one.next()
        async with ads.delta(FakeCall(IDENTITY)) as second:
            second.send(node=a_node(), type_url=CLUSTER)
            with pytest.raises(RefusedError) as caught:
                await second.next()
            assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stream_without_a_request_ends():
    ads = Ads(a_set(1), Limits(first_request_s=0.01))
    async with ads.delta() as call:
        with pytest.raises(RefusedError) as caught:
            await call.next()
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_an_old_stream_ends_without_an_error():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")), Limits(longest_age_s=0.05))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        assert await call.next() is None
    assert len(ads.connected) == ads.source.views == 0


async def test_a_certificate_ends_a_stream_before_its_age_does():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")), Limits(longest_age_s=3600))
    expired = FakeCall(IDENTITY, a_certificate(valid_for=timedelta(seconds=-1)))
    async with ads.delta(expired) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        while await call.next() is not None:
            pass


async def test_an_end_reaches_a_stream_whose_client_reads_nothing():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a"), a_resource(LISTENER, "l")))
    at = FakeCall()
    async with ads.delta(at) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        call.send(type_url=ENDPOINT, resource_names_subscribe=["x"])
        while at.room:
            await asyncio.sleep(0)
        await asyncio.wait_for(ads.server.drain(), 10)
    assert len(ads.connected) == ads.source.views == 0


async def test_a_slow_reader_has_one_response_made_for_it_and_no_more():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a", "1")))
    at = FakeCall(window=1)
    async with ads.delta(at) as call:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        (connected,) = ads.connected
        for version in range(2, 200):
            ads.source.publish(a_set(version, a_resource(CLUSTER, "a", str(version))))
            for _ in range(5):
                await asyncio.sleep(0)
        pending = connected.stream.types[CLUSTER].pending
        assert len(pending) <= 2, "the first, and one in the window"
        bodies = [(await call.next()).resources[0].resource.value for _ in range(2)]
        assert bodies[-1] == b"199"


@pytest.mark.parametrize("dropped", [True, False])
async def test_what_a_stream_held_is_freed_with_it(dropped):
    """Without the collector: what Pilot sets aside of long-lived objects is freed by its reference counts alone."""
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    gc.disable()
    try:
        async with ads.delta() as call:
            call.send(node=a_node(), type_url=CLUSTER)
            await call.next()
            (connected,) = ads.connected
            stream = weakref.ref(connected.stream)
            del connected
            if not dropped:
                call.end()
                assert await call.next() is None
        del call
        assert stream() is None
    finally:
        gc.enable()


async def test_a_response_that_cannot_be_made_ends_its_stream_alone(monkeypatch):
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")))
    async with ads.delta() as call, ads.delta() as other:
        for one in (call, other):
            one.send(node=a_node(), type_url=CLUSTER)
            await one.next()
        failing, _ = (item.stream for item in ads.connected)

        def broken() -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(failing, "next", broken)
        ads.source.publish(a_set(2, a_resource(CLUSTER, "a", "2")))
        with pytest.raises(ZeroDivisionError):
            await call.next()
        assert names(await other.next()) == ["a"]
        assert len(ads.connected) == ads.source.views == 1


# ---- admission --------------------------------------------------------------------------------------------------------


async def test_first_syncs_are_a_few_at_a_time_in_order():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")), Limits(first_syncs=2, first_sync_s=60))
    async with AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(ads.delta()) for _ in range(5)]
        for call in calls:
            call.send(node=a_node(), type_url=CLUSTER)
        first, second = await calls[0].next(), await calls[1].next()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(ads.source.attached) == 2, "the others wait, unattached"
        calls[1].send(type_url=CLUSTER, response_nonce=second.nonce)
        assert names(await calls[2].next()) == ["a"]
        assert len(ads.source.attached) == 3
        calls[0].send(type_url=CLUSTER, response_nonce=first.nonce)
        assert names(await calls[3].next()) == ["a"]
        await calls[2].close()
        assert names(await calls[4].next()) == ["a"]


async def test_who_never_answers_holds_up_nobody_for_long():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")), Limits(first_syncs=1, first_sync_s=0.02))
    async with ads.delta() as silent, ads.delta() as other:
        for call in (silent, other):
            call.send(node=a_node(), type_url=CLUSTER)
            assert names(await call.next()) == ["a"]


async def test_who_leaves_while_waiting_leaves_nothing_behind():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")), Limits(first_syncs=1, first_sync_s=60))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        first = await call.next()
        async with ads.delta() as waiting:
            waiting.send(node=a_node(), type_url=CLUSTER)
            for _ in range(20):
                await asyncio.sleep(0)
        call.send(type_url=CLUSTER, response_nonce=first.nonce)
        async with ads.delta() as third:
            third.send(node=a_node(), type_url=CLUSTER)
            assert await third.next() is not None


async def test_a_drain_reaches_who_waits():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a")), Limits(first_syncs=1, first_sync_s=60))
    async with ads.delta() as call, ads.delta() as waiting, ads.delta() as silent:
        call.send(node=a_node(), type_url=CLUSTER)
        await call.next()
        waiting.send(node=a_node(), type_url=CLUSTER)
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.wait_for(ads.server.drain(), 10)
        assert await waiting.next() is await silent.next() is None


# ---- services of one type ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("only", [only for _, only in SERVICES.values()])
async def test_a_service_of_one_type_needs_no_type_url(only):
    ads = Ads(a_set(1, a_resource(only, "a"), a_resource(CLUSTER, "other")))
    async with ads.delta(only=only) as delta, ads.sotw(only=only) as sotw:
        delta.send(node=a_node(), resource_names_subscribe=["a"])
        response = await delta.next()
        assert (response.type_url, names(response)) == (only, ["a"])
        sotw.send(node=a_node(), resource_names=["a"])
        whole = await sotw.next()
        assert (whole.type_url, len(whole.resources)) == (only, 1)


async def test_a_service_of_one_type_has_no_other():
    ads = Ads(a_set(1))
    async with ads.delta(only=ENDPOINT) as call:
        call.send_raw(first_request(a_node(), type_url=LISTENER))
        with pytest.raises(RefusedError) as caught:
            await call.next()
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_every_service_is_on_the_server():
    wanted = {
        f"/{service}/{kind}{ending}"
        for service, (ending, _) in SERVICES.items()
        for kind in ("Stream", "Delta")
    }
    assert len(wanted) == 12
    assert wanted < Ads(a_set(1)).server.behaviours().keys()


# ---- what others learn ------------------------------------------------------------------------------------------------


async def test_every_answer_is_told_with_what_it_proves():
    ads = Ads(a_set(1, a_resource(CLUSTER, "a"), a_resource(LISTENER, "l")))
    told = []
    ads.server.tell(
        lambda proxy, state, found: told.append(
            (proxy.name, state.acked_version, [item.name for item in found])
        )
    )
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        first = await call.next()
        call.send(type_url=CLUSTER, response_nonce=first.nonce, error_detail={"message": "no"})
        call.send(type_url=LISTENER)
        second = await call.next()
        call.send(type_url=LISTENER, response_nonce=second.nonce)
        call.send(type_url=ENDPOINT, resource_names_subscribe=["e"])
        await call.next()
    assert told == [("reviews-v1", 0, ["a"]), ("reviews-v1", 1, [])]


async def test_a_client_is_late_with_what_came_after_it_and_with_nothing_else():
    """It connects to what was pushed long ago: that is no time from a change to its ACK."""
    ads = Ads(a_set(7, a_resource(CLUSTER, "a")))
    told: list[tuple[int, int]] = []
    ads.server.tell(lambda *_: None, lambda now, since: told.append((now.version, since)))
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        first = await call.next()
        call.send(type_url=CLUSTER, response_nonce=first.nonce)
        ads.source.publish(a_set(8, a_resource(CLUSTER, "a", "2")))
        second = await call.next()
        assert told == []
        call.send(type_url=CLUSTER, response_nonce=second.nonce)
        call.send(type_url=ENDPOINT, resource_names_subscribe=["e"])
        await call.next()
    assert told == [(8, 7)]


async def test_what_is_held_for_all_is_not_sent_until_it_is_released():
    bad, good = a_resource(CLUSTER, "bad"), a_resource(CLUSTER, "good")
    ads = Ads(a_set(1, bad, good))
    await ads.server.hold({(CLUSTER, "bad", bad.version): None})
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        first = await call.next()
        assert names(first) == ["good"]
        call.send(type_url=CLUSTER, response_nonce=first.nonce)
        await ads.server.hold({})
        assert names(await call.next()) == ["bad"]


async def test_a_held_version_that_changes_needs_no_release():
    bad = a_resource(CLUSTER, "c", "bad")
    ads = Ads(a_set(1, bad))
    await ads.server.hold({(CLUSTER, "c", bad.version): None})
    async with ads.delta() as call:
        call.send(node=a_node(), type_url=CLUSTER)
        assert names(await call.next()) == []
        ads.source.publish(a_set(2, a_resource(CLUSTER, "c", "mended")))
        assert names(await call.next()) == ["c"]
