"""Exceptions of handlers as statuses: what the caller can mend says so, a defect tells only a request id."""

from __future__ import annotations

import re
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from tests.unit.rpc.pki import SERVICE
from windward.rpc import errors
from windward.rpc import server as servers

SECRET_WORDS = "the words of a defect"


class Failing:
    """Every shape of method; each answers twice what it got, or raises what it was told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def unary_unary(self, request, context):
        self._raise()
        return request * 2

    async def unary_stream(self, request, context):
        yield request
        self._raise()
        yield request

    async def stream_unary(self, requests, context):
        taken = [request async for request in requests]
        self._raise()
        return b"".join(taken) * 2

    async def stream_stream(self, requests, context):
        async for request in requests:
            self._raise()
            yield request * 2

    async def written(self, request, context):
        self._raise()
        await context.abort(grpc.StatusCode.ABORTED, "by hand")

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error

    def handlers(self) -> grpc.GenericRpcHandler:
        methods: dict[str, Any] = {
            "UU": grpc.unary_unary_rpc_method_handler(self.unary_unary),
            "US": grpc.unary_stream_rpc_method_handler(self.unary_stream),
            "SU": grpc.stream_unary_rpc_method_handler(self.stream_unary),
            "SS": grpc.stream_stream_rpc_method_handler(self.stream_stream),
            "Abort": grpc.unary_unary_rpc_method_handler(self.written),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)


@pytest.fixture
async def service():
    failing = Failing()
    server = servers.new_server(interceptors=[errors.ErrorInterceptor()])
    server.add_generic_rpc_handlers((failing.handlers(),))
    port = servers.listen_plaintext(server, "127.0.0.1:0", setting="--address")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield failing, channel
    await server.stop(None)


async def call(channel: Any, method: str) -> Any:
    path = f"/{SERVICE}/{method}"
    if method in ("UU", "Abort"):
        return await channel.unary_unary(path)(b"x", timeout=10)
    if method == "SU":
        return await channel.stream_unary(path)(iter([b"x"]), timeout=10)
    made = (
        channel.unary_stream(path)(b"x", timeout=10)
        if method == "US"
        else channel.stream_stream(path)(iter([b"x"]), timeout=10)
    )
    return b"".join([part async for part in made])


SHAPES = ["UU", "US", "SU", "SS"]


@pytest.mark.parametrize("method", SHAPES)
async def test_an_answer_passes_untouched(service, method):
    _, channel = service
    assert await call(channel, method) == b"xx"


@pytest.mark.parametrize("method", SHAPES)
async def test_a_refusal_keeps_its_status_and_words(service, method):
    failing, channel = service
    failing.error = errors.denied("not your workload")
    with capture_logs() as logged, pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(channel, method)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert refused.value.details() == "not your workload"
    assert logged == []


@pytest.mark.parametrize("method", SHAPES)
async def test_a_defect_tells_the_caller_an_id_and_the_log_the_rest(service, method):
    failing, channel = service
    failing.error = KeyError(SECRET_WORDS)
    with capture_logs() as logged, pytest.raises(grpc.aio.AioRpcError) as failed:
        await call(channel, method)
    assert failed.value.code() is grpc.StatusCode.INTERNAL
    details = failed.value.details() or ""
    assert SECRET_WORDS not in details
    (entry,) = logged
    assert re.fullmatch(rf"internal error, request id {entry['request_id']}", details)
    assert entry["event"] == "rpc.failed"
    assert entry["method"] == f"/{SERVICE}/{method}"
    assert entry["exc_info"] is failing.error


async def test_a_handlers_own_abort_is_left_alone(service):
    _, channel = service
    with capture_logs() as logged, pytest.raises(grpc.aio.AioRpcError) as aborted:
        await call(channel, "Abort")
    assert aborted.value.code() is grpc.StatusCode.ABORTED
    assert aborted.value.details() == "by hand"
    assert logged == []


async def test_the_server_goes_on_after_a_defect(service):
    failing, channel = service
    failing.error = RuntimeError("once")
    with capture_logs(), pytest.raises(grpc.aio.AioRpcError):
        await call(channel, "UU")
    failing.error = None
    assert await call(channel, "UU") == b"xx"


async def test_an_unknown_method_is_unimplemented(service):
    _, channel = service
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await channel.unary_unary(f"/{SERVICE}/Nothing")(b"", timeout=10)
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (errors.invalid, grpc.StatusCode.INVALID_ARGUMENT),
        (errors.denied, grpc.StatusCode.PERMISSION_DENIED),
        (errors.unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
        (errors.not_found, grpc.StatusCode.NOT_FOUND),
        (errors.unavailable, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_refusals_by_name(make, code):
    made = make("because")
    assert (made.code, made.message, str(made)) == (code, "because", "because")
