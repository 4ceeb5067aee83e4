"""Renewing leases, many on one stream: whoever asks while rounds are under way takes part in the next one.

    renew(7), renew(9), ... -> one round: a stream, all requests, all answers -> TTL each

A Pilot renews for every agent that it serves, a third of a TTL apart: a stream for each would cost ten times as much.
"""

from __future__ import annotations

import asyncio

from windward.api.store.v1 import etcd_pb2 as wire
from windward.store.etcd.connection import Connection

MOST_A_ROUND = 250
MOST_ROUNDS = 4
"""At once: etcd answers for a lease that has just lapsed only when it is gone, and a stream in order."""
METHOD = "/etcdserverpb.Lease/LeaseKeepAlive"


class Renewals:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[int, list[asyncio.Future[int]]] = {}
        self._rounds: set[asyncio.Task[None]] = set()

    async def renew(self, lease: int) -> int:
        """The lease's TTL in seconds, 0 when it has lapsed. Raises what a call raises (connection.py)."""
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lease, []).append(answered)
        if len(self._rounds) < MOST_ROUNDS:
            task = asyncio.ensure_future(self._run())
            self._rounds.add(task)
            task.add_done_callback(self._rounds.discard)
        return await answered

    async def _run(self) -> None:
        while self._waiting:
            leases = list(self._waiting)[:MOST_A_ROUND]
            taken = {lease: self._waiting.pop(lease) for lease in leases}
            try:
                ttls = await self._round(leases)
            except asyncio.CancelledError:
                for answered in _open(taken):
                    answered.cancel()
                raise
            except Exception as error:
                for answered in _open(taken):
                    answered.set_exception(error)
                continue
            for lease, waiting in taken.items():
                for answered in _open({lease: waiting}):
                    answered.set_result(ttls.get(lease, 0))

    async def _round(self, leases: list[int]) -> dict[int, int]:
        call = self._connection.channel().stream_stream(
            METHOD,
            request_serializer=wire.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=wire.LeaseKeepAliveResponse.FromString,
        )
        requests = [wire.LeaseKeepAliveRequest(ID=lease) for lease in leases]
        answers = await self._connection.answers(call, requests)
        return {answer.ID: answer.TTL for answer in answers}

    async def close(self) -> None:
        for task in self._rounds:
            task.cancel()
        await asyncio.gather(*self._rounds, return_exceptions=True)
        for answered in _open(self._waiting):
            answered.cancel()


def _open(waiting: dict[int, list[asyncio.Future[int]]]) -> list[asyncio.Future[int]]:
    """Those that somebody still waits for."""
    return [answered for some in waiting.values() for answered in some if not answered.done()]
