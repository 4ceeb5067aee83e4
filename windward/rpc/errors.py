"""Errors of services as gRPC statuses: one interceptor maps them, and nothing else does.

A RefusedError is the caller's to mend and carries its status. Anything else is ours: the caller gets INTERNAL and a
request id, the log gets the traceback under the same id.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from windward.store.errors import StoreError
from windward.telemetry.logging import get_logger

log = get_logger()


class RefusedError(Exception):
    """A request that is refused, with the status and the words for the caller."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, message)


def denied(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.PERMISSION_DENIED, message)


def unauthenticated(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNAUTHENTICATED, message)


def not_found(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.NOT_FOUND, message)


def unavailable(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNAVAILABLE, message)


def exhausted(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)


def late(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.DEADLINE_EXCEEDED, message)


def unimplemented(message: str) -> RefusedError:
    return RefusedError(grpc.StatusCode.UNIMPLEMENTED, message)


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore]
    """Maps exceptions of handlers to statuses."""

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        serialisers = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _unary(handler.unary_unary, method), **serialisers
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _stream(handler.unary_stream, method), **serialisers
            )
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(
                _unary(handler.stream_unary, method), **serialisers
            )
        return grpc.stream_stream_rpc_method_handler(
            _stream(handler.stream_stream, method), **serialisers
        )


def _unary(behaviour: Any, method: str) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behaviour(request, context)
        except Exception as error:
            await _abort(error, context, method)

    return call


def _stream(behaviour: Any, method: str) -> Any:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            answer = behaviour(request, context)
            if hasattr(answer, "__aiter__"):
                async for response in answer:
                    yield response
            else:
                await answer
        except Exception as error:
            await _abort(error, context, method)

    return call


async def _abort(
    error: Exception, context: grpc.aio.ServicerContext[Any, Any], method: str
) -> None:
    if isinstance(error, (grpc.aio.AbortError, grpc.aio.UsageError)):
        raise error
    await context.abort(*status_of(error, method))


def status_of(error: Exception, method: str) -> tuple[grpc.StatusCode, str]:
    """What the caller is told of an error; what is not its own to mend is logged."""
    if isinstance(error, RefusedError):
        return error.code, error.message
    if isinstance(error, StoreError):
        return grpc.StatusCode.UNAVAILABLE, str(error)
    request_id = secrets.token_hex(8)
    log.error("rpc.failed", method=method, request_id=request_id, exc_info=error)
    return grpc.StatusCode.INTERNAL, f"internal error, request id {request_id}"
