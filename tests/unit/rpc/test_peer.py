"""Who calls: exactly one proven SPIFFE id, exactly one bearer token, or nobody."""

from __future__ import annotations

from typing import Any

import pytest

from windward.rpc.peer import bearer_token, peer_expiry, peer_identity


class Presented:
    def __init__(self, auth=None, metadata=()):
        self._auth = auth or {}
        self._metadata = metadata

    def auth_context(self):
        return self._auth

    def invocation_metadata(self):
        return self._metadata


def presenting(auth: dict[str, list[bytes]] | None = None, metadata: Any = ()) -> Any:
    return Presented(auth, metadata)


def test_the_one_spiffe_id_of_the_peer():
    found = peer_identity(
        presenting({"peer_spiffe_id": [b"spiffe://cluster.local/ns/shop/sa/reviews"]})
    )
    assert found is not None
    assert (found.namespace, found.service_account) == ("shop", "reviews")


@pytest.mark.parametrize(
    "names",
    [
        [],
        [b"spiffe://a/ns/x/sa/y", b"spiffe://a/ns/x/sa/z"],
        [b"https://a/ns/x/sa/y"],
        [b"\xff\xfe"],
        [b""],
        [b"spiffe://a/ns/../sa/y"],
    ],
)
def test_nobody_is_named_by_anything_else(names):
    assert peer_identity(presenting({"peer_spiffe_id": names})) is None
    assert peer_identity(presenting({"x509_common_name": names})) is None


def test_without_a_certificate_there_is_no_expiry():
    assert peer_expiry(presenting()) is None


@pytest.mark.parametrize("value", ["Bearer abc.def", "bearer abc.def"])
def test_the_token(value):
    metadata = (("x-other", "1"), ("authorization", value))
    assert bearer_token(presenting(metadata=metadata)) == "abc.def"


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        (),
        (("authorization", "Bearer a"), ("authorization", "Bearer b")),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer"),),
        (("authorization", "Basic abc"),),
        (("authorization", b"Bearer abc"),),
        (("authorization-bin", "Bearer abc"),),
    ],
)
def test_no_token_or_more_than_one_is_none(metadata):
    assert bearer_token(presenting(metadata=metadata)) is None
