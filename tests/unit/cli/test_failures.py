"""Errors as one line that says what to do; bugs are not explained away."""

from __future__ import annotations

import grpc
import pytest

from windward.cli.failures import UserError, explain
from windward.client.context import ContextError
from windward.local.errors import LocalMeshError

Code = grpc.StatusCode


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (Code.UNAVAILABLE, "the mesh does not answer (why): is it up?"),
        (Code.DEADLINE_EXCEEDED, "the mesh does not answer (why): is it up?"),
        (Code.PERMISSION_DENIED, "not allowed: why"),
        (Code.UNAUTHENTICATED, "not allowed: why"),
        (Code.NOT_FOUND, "why"),
        (Code.INVALID_ARGUMENT, "why"),
        (Code.ABORTED, "why: somebody else changed it"),
        (Code.INTERNAL, "INTERNAL: why"),
    ],
)
def test_statuses(code: grpc.StatusCode, said: str):
    line = explain(Failed(code, "why"))
    assert line is not None
    assert line.startswith(said)


@pytest.mark.parametrize("kind", [UserError, ContextError, LocalMeshError])
def test_what_a_user_can_mend_is_said_as_it_is(kind: type[Exception]):
    assert explain(kind("mend this")) == "mend this"
    assert explain(ExceptionGroup("", [kind("mend this")])) == "mend this"


def test_a_bug_is_not_explained():
    assert explain(ValueError("ours")) is None
    assert explain(ExceptionGroup("", [UserError("a"), UserError("b")])) is None
