"""Servicers that were generated for grpc.aio, on calls of this transport.

    request bytes ─► deserialiser ─► behaviour(request, context) ─► serialiser ─► response bytes

Errors need no interceptor: the server maps what a behaviour raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc

from windward.rpc.errors import RefusedError, invalid
from windward.rpc.http2.call import Call
from windward.rpc.http2.headers import Metadata

Behaviour = Callable[[Call], Awaitable[None]]


class Context:
    """The part of ``grpc.aio.ServicerContext`` that servicers may use here."""

    def __init__(self, call: Call, serialise: Callable[[Any], bytes] | None) -> None:
        self._call = call
        self._serialise = serialise
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._deadline_s: float | None = None
        if call.request.timeout_s is not None:
            loop = asyncio.get_running_loop()
            self._deadline_s = loop.time() + call.request.timeout_s

    def invocation_metadata(self) -> Metadata:
        return self._call.invocation_metadata()

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._call.auth_context()

    def peer(self) -> str:
        return self._call.peer()

    def time_remaining(self) -> float | None:
        """Seconds; None without a deadline."""
        if self._deadline_s is None:
            return None
        return max(0.0, self._deadline_s - asyncio.get_running_loop().time())

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> NoReturn:
        self._call.trailing = tuple(trailing_metadata)
        raise RefusedError(code, details)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._call.trailing = tuple(metadata)

    def cancelled(self) -> bool:
        return self._call.gone

    def done(self) -> bool:
        return self._call.gone or self._call.finished

    async def write(self, response: Any) -> None:
        """Send a response, and wait until the client has room for another."""
        self._call.send(self._serialise(response) if self._serialise else response)
        await self._call.until_room()

    def check(self) -> None:
        """RefusedError for a status that a servicer set without raising."""
        if self._code not in (None, grpc.StatusCode.OK):
            assert self._code is not None
            raise RefusedError(self._code, self._details)


def behaviour_of(handler: grpc.RpcMethodHandler[Any, Any]) -> Behaviour:
    """A generated method handler, of any of the four kinds, as a behaviour."""
    made: Any = handler
    parse = _parser(made.request_deserializer)
    unary = made.unary_unary or made.stream_unary

    async def call(of: Call) -> None:
        context = Context(of, made.response_serializer)
        request = _requests(of, parse) if made.request_streaming else await _only(of, parse)
        if unary is not None:
            response = await unary(request, context)
            context.check()
            await context.write(response)
            return
        answer = (made.unary_stream or made.stream_stream)(request, context)
        if hasattr(answer, "__aiter__"):
            async for response in answer:
                await context.write(response)
        else:
            await answer
        context.check()

    return call


def _parser(deserialise: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def parse(raw: bytes) -> Any:
        if deserialise is None:
            return raw
        try:
            return deserialise(raw)
        except Exception as error:
            raise invalid("the request is not the message that the method takes") from error

    return parse


async def _only(call: Call, parse: Callable[[bytes], Any]) -> Any:
    raw = await call.receive()
    if raw is None:
        raise invalid("a call of this method has one request, this one has none")
    return parse(raw)


async def _requests(call: Call, parse: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    while (raw := await call.receive()) is not None:
        yield parse(raw)
