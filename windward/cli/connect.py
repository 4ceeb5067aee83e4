"""From a context file to stubs: mTLS with the administrator's certificate, the server's name pinned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from windward.api.admin.v1 import admin_pb2_grpc
from windward.api.config.v1 import config_pb2_grpc
from windward.api.trust.v1 import trust_pb2_grpc
from windward.client import context as contexts
from windward.identity.names import CITADEL_ACCOUNT, CONTROL_PLANE_DNS, PILOT_ACCOUNT

DEADLINE_S = 15.0
CHANGE_DEADLINE_S = 60.0
"""Of a change of many objects: all of them are checked, and stored in parts."""
MESSAGE_LIMIT_BYTES = 64 * 1024 * 1024


@contextmanager
def pilot(context: str | None) -> Iterator[config_pb2_grpc.ConfigServiceStub]:
    path = contexts.locate(context)
    found = contexts.load(path)
    with _channel(found, path, found.pilot, PILOT_ACCOUNT) as channel:
        yield config_pb2_grpc.ConfigServiceStub(channel)


@contextmanager
def admin(context: str | None) -> Iterator[admin_pb2_grpc.AdminServiceStub]:
    """Pilot's views of itself."""
    path = contexts.locate(context)
    found = contexts.load(path)
    with _channel(found, path, found.pilot, PILOT_ACCOUNT) as channel:
        yield admin_pb2_grpc.AdminServiceStub(channel)


@contextmanager
def citadel(context: str | None) -> Iterator[trust_pb2_grpc.TrustServiceStub]:
    path = contexts.locate(context)
    found = contexts.load(path)
    with _channel(found, path, found.citadel.mtls, CITADEL_ACCOUNT) as channel:
        yield trust_pb2_grpc.TrustServiceStub(channel)


def _channel(found: contexts.Context, path: object, address: str, account: str) -> grpc.Channel:
    beside = Path(str(path)).parent
    credentials = grpc.ssl_channel_credentials(
        root_certificates=found.read("trust_bundle_file", beside),
        private_key=found.read("key_file", beside),
        certificate_chain=found.read("certificate_file", beside),
    )
    options = (
        ("grpc.ssl_target_name_override", CONTROL_PLANE_DNS[account]),
        ("grpc.max_receive_message_length", MESSAGE_LIMIT_BYTES),
        ("grpc.enable_http_proxy", 0),
    )
    return grpc.secure_channel(address, credentials, options)
