"""Calls to etcd: one channel an endpoint, rotation, deadlines, and what each failure means.

grpc's pick_first stays with a server that hangs (the kernel still acknowledges), so there is one channel an endpoint
and the client turns to the next one on UNAVAILABLE and DEADLINE_EXCEEDED itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message

from windward.api.store.v1 import etcd_pb2 as wire
from windward.store.errors import Compacted, Denied, LeaseLost, TooLarge, Unavailable

CALL_TIMEOUT_S = 1.5
TOTAL_TIMEOUT_S = 8.0
OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_time_between_pings_ms", 5_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
TRANSIENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Tls:
    ca: bytes | None
    certificate: bytes | None
    key: bytes | None


class Interrupted(Exception):
    """A call's connection broke or its deadline passed: it may have been carried out, or not."""


class Connection:
    """The endpoints of one etcd, and whichever of them is in use."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
    ) -> None:
        self._endpoints = tuple(endpoint.strip() for endpoint in endpoints)
        self._tls = tls
        self._user, self._password = user, password
        self._token = ""
        self._index = 0
        self._channels: dict[int, grpc.aio.Channel] = {}

    @property
    def endpoint(self) -> str:
        return self._endpoints[self._index]

    def channel(self) -> grpc.aio.Channel:
        if self._index not in self._channels:
            self._channels[self._index] = self._open(self.endpoint)
        return self._channels[self._index]

    def rotate(self, away_from: str) -> None:
        """Turn to the next endpoint, unless somebody else has already."""
        if self.endpoint == away_from:
            self._index = (self._index + 1) % len(self._endpoints)

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        if self._user and not self._token:
            await self.log_in()
        return (
            (("token", self._token), ("hasleader", "true"))
            if self._token
            else (("hasleader", "true"),)
        )

    async def log_in(self) -> None:
        """Get a token for the configured user. Raises Denied when it is refused."""
        request = wire.AuthenticateRequest(name=self._user, password=self._password)
        endpoint = self.endpoint
        call = self.channel().unary_unary(
            "/etcdserverpb.Auth/Authenticate",
            request_serializer=wire.AuthenticateRequest.SerializeToString,
            response_deserializer=wire.AuthenticateResponse.FromString,
        )
        try:
            response = await call(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in TRANSIENT:
                self.rotate(endpoint)
                raise Interrupted from error
            raise Denied(f"etcd refuses user {self._user!r}: {error.details()}") from error
        self._token = response.token

    async def once(self, method: str, request: Message, answer: type[M]) -> M:
        """One attempt. Raises Interrupted when its outcome is unknown, or the StoreError that etcd's status means."""
        endpoint = self.endpoint
        call = self.channel().unary_unary(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            result: M = await call(request, timeout=CALL_TIMEOUT_S, metadata=await self.metadata())
        except grpc.aio.AioRpcError as error:
            self._raise(error, endpoint)
        return result

    async def answers(self, method: Any, requests: Sequence[Message]) -> list[Any]:
        """Open a stream, send requests, take an answer for each, end it. Raises Interrupted or a StoreError."""
        endpoint = self.endpoint
        stream = method(timeout=CALL_TIMEOUT_S, metadata=await self.metadata())
        taken: list[Any] = []
        try:
            for request in requests:
                await stream.write(request)
            while (
                len(taken) < len(requests) and (answer := await stream.read()) is not grpc.aio.EOF
            ):
                taken.append(answer)
        except grpc.aio.AioRpcError as error:
            self._raise(error, endpoint)
        finally:
            stream.cancel()
        if len(taken) < len(requests):
            self.rotate(endpoint)
            raise Interrupted
        return taken

    async def idempotent(self, method: str, request: Message, answer: type[M]) -> M:
        """Attempts until one succeeds or the time is over. Raises Unavailable then."""
        deadline = asyncio.get_running_loop().time() + TOTAL_TIMEOUT_S
        pause_s = 0.05
        while True:
            try:
                return await self.once(method, request, answer)
            except Interrupted as error:
                if asyncio.get_running_loop().time() + pause_s > deadline:
                    places = ", ".join(self._endpoints)
                    raise Unavailable(f"etcd does not answer ({places}): is it running?") from error
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
            pause_s = min(pause_s * 2, 1.0)

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    def _open(self, endpoint: str) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(endpoint, options=OPTIONS)
        credentials = grpc.ssl_channel_credentials(
            self._tls.ca, self._tls.key, self._tls.certificate
        )
        return grpc.aio.secure_channel(endpoint, credentials, options=OPTIONS)

    def _raise(self, error: grpc.aio.AioRpcError, endpoint: str) -> NoReturn:
        """Translate a status into what the caller can act on."""
        code, details = error.code(), error.details() or ""
        if code in TRANSIENT or code is grpc.StatusCode.CANCELLED:
            self.rotate(endpoint)
            raise Interrupted from error
        if code is grpc.StatusCode.UNAUTHENTICATED and self._user:
            self._token = ""
            raise Interrupted from error
        if code is grpc.StatusCode.OUT_OF_RANGE:
            raise Compacted(0) from error
        if code is grpc.StatusCode.NOT_FOUND and "lease" in details:
            raise LeaseLost(details) from error
        if (
            "too large" in details
            or "too many operations" in details
            or code is grpc.StatusCode.RESOURCE_EXHAUSTED
        ):
            raise TooLarge(details) from error
        if (
            code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
            or "user name" in details
        ):
            raise Denied(f"etcd refuses: {details}") from error
        self.rotate(endpoint)
        raise Interrupted(details) from error
