import asyncio
from contextlib import asynccontextmanager

from services.agent.health import watch as module
from services.agent.health.probes import ProbeFailed
from services.agent.health.verdict import Timing
from services.agent.health.watch import HealthWatch
from windward.api.registry.v1 import registry_pb2

Probe = registry_pb2.ReadinessProbe


def probe(**options) -> registry_pb2.ReadinessProbe:
    return Probe(tcp_socket=Probe.TcpSocket(port=1), **options)


@asynccontextmanager
async def watching(monkeypatch, results):
    """A watch whose questions have these results, each as soon as it is asked; the last one for ever."""
    pending = list(results)

    async def asked(*_, **__):
        failure = pending.pop(0) if len(pending) > 1 else pending[0]
        if failure:
            raise ProbeFailed(failure)

    monkeypatch.setattr(module, "ask", asked)
    monkeypatch.setattr(module, "timing", lambda _: Timing(0, 1, 0))
    watch = HealthWatch("127.0.0.1", commands=False)
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
