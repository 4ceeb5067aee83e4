import asyncio
from contextlib import asynccontextmanager

from services.agent.health import watch as module
from services.agent.health.probes import ProbeFailed
from services.agent.health.verdict import Timing
from services.agent.health.watch import HealthWatch
from windward.api.registry.v1 import registry_pb2

Probe = registry_pb2.ReadinessProbe
AT_ONCE = Timing(0, 1, 0)


def probe(**options) -> registry_pb2.ReadinessProbe:
    return Probe(tcp_socket=Probe.TcpSocket(port=1), **options)


@asynccontextmanager
async def watching(monkeypatch, results, times=AT_ONCE, **options):
    """A watch whose questions have these results, each as soon as it is asked; the last one for ever."""
    pending = list(results)

    async def asked(*_, **__):
        failure = pending.pop(0) if len(pending) > 1 else pending[0]
        if failure:
            raise ProbeFailed(failure)

    monkeypatch.setattr(module, "ask", asked)
    monkeypatch.setattr(module, "timing", lambda _: times)
    watch = HealthWatch("127.0.0.1", commands=False, **options)
    task = asyncio.ensure_future(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def turn(watch, *, healthy):
    async with asyncio.timeout(5):
        while watch.healthy != healthy:
            watch.changed.clear()
            await watch.changed.wait()


async def test_without_a_probe_it_is_healthy(monkeypatch):
    async with watching(monkeypatch, ["never asked"]) as watch:
        watch.follow(None)
        assert watch.healthy
        assert not watch.changed.is_set()


async def test_with_a_probe_it_is_unhealthy_until_that_has_succeeded(monkeypatch):
    async with watching(monkeypatch, ["down", "down", ""]) as watch:
        watch.follow(probe())
        assert not watch.healthy
        assert watch.changed.is_set()
        await turn(watch, healthy=True)
        assert watch.problem == ""


async def test_it_falls_after_so_many_failures_and_says_why(monkeypatch):
    async with watching(monkeypatch, ["", "a", "b", "c"]) as watch:
        watch.follow(probe(failure_threshold=3))
        await turn(watch, healthy=True)
        await turn(watch, healthy=False)
        assert watch.problem == "c"


async def test_the_same_probe_again_disturbs_nothing_and_none_ends_it(monkeypatch):
    async with watching(monkeypatch, [""]) as watch:
        watch.follow(probe())
        await turn(watch, healthy=True)
        watch.follow(probe())
        assert watch.healthy
        watch.follow(probe(period_seconds=7))
        assert not watch.healthy
        watch.follow(None)
        assert watch.healthy


async def test_an_agent_that_comes_back_takes_no_healthy_application_away(monkeypatch):
    """It may come back often; the application has been there all the time."""
    slow = Timing(initial_delay_s=60, timeout_s=1, period_s=0)
    async with watching(monkeypatch, ["", "", "down"], slow, resumed=True) as watch:
        watch.follow(probe(success_threshold=2, failure_threshold=3))
        assert watch.healthy
        assert not watch.changed.is_set()
        await turn(watch, healthy=False)
        assert watch.problem == "down"


async def test_an_application_that_went_with_the_agent_is_told_of_by_the_first_answer(monkeypatch):
    async with watching(monkeypatch, ["down", "up is", "late", ""], resumed=True) as watch:
        watch.follow(probe(failure_threshold=3))
        await turn(watch, healthy=False)
        assert watch.problem == "down"
        await turn(watch, healthy=True)


async def test_a_second_probe_is_a_new_one_for_an_agent_that_came_back_too(monkeypatch):
    async with watching(monkeypatch, ["", "", ""], resumed=True) as watch:
        watch.follow(probe())
        async with asyncio.timeout(5):
            while watch._resumed:
                await asyncio.sleep(0)
        watch.follow(probe(period_seconds=7))
        assert not watch.healthy
