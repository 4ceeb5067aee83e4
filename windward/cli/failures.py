"""Errors that a user of the CLI can act on, each as one line; anything else is a bug and shows its traceback."""

from __future__ import annotations

import grpc

from windward.client.context import ContextError
from windward.local.errors import LocalMeshError


class UserError(Exception):
    """What is wrong with the request, and how to mend it."""


def explain(error: BaseException) -> str | None:
    """One line for people; None when the error is nobody's fault but ours."""
    if isinstance(error, (UserError, ContextError, LocalMeshError)):
        return str(error)
    if isinstance(error, grpc.RpcError):
        return explain_rpc(error)
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return explain(error.exceptions[0])
    return None


def explain_rpc(error: grpc.RpcError) -> str:
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    details = (error.details() if hasattr(error, "details") else "") or str(error)
    match code:
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"the mesh does not answer ({details}): is it up? See `windward mesh status`"
        case grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.UNAUTHENTICATED:
            return f"not allowed: {details}"
        case grpc.StatusCode.NOT_FOUND | grpc.StatusCode.INVALID_ARGUMENT:
            return details
        case grpc.StatusCode.ABORTED:
            return f"{details}: somebody else changed it at the same time; try again"
    return f"{code.name}: {details}"
