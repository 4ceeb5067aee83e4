"""Channels to a service that is served at one of several addresses, kept current across certificate rotation.

grpc's own pick_first does not leave a server that hangs, so there is one channel an address and the caller moves on
(``next_address``) when a call times out. A channel cannot change its certificate: it is replaced, the old one closed
after its calls had time to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from windward.rpc.credentials import TlsSource

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
"""Reconnects come often: callers pace themselves, and a server that is back must hear of them within any lease."""
OLD_CHANNEL_GRACE_S = 10.0


class ChannelSource:
    """The channel to use now. ``source`` for mTLS, ``roots_pem`` for server-side TLS alone, neither for plaintext."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        server_name: str = "",
        source: TlsSource | None = None,
        roots_pem: bytes | None = None,
    ) -> None:
        if not addresses:
            raise ValueError("a channel needs at least one address")
        self.addresses = tuple(addresses)
        self._server_name = server_name
        self._source = source
        self._roots_pem = roots_pem
        self._index = 0
        self._made_for: tuple[int, int] | None = None
        self._channel: grpc.aio.Channel | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return self.addresses[self._index]

    def channel(self) -> grpc.aio.Channel:
        """The channel for the current address and certificate."""
        wanted = (self._index, self._source.sequence if self._source else 0)
        if self._channel is None or self._made_for != wanted:
            self._retire()
            self._channel = self._make()
            self._made_for = wanted
        return self._channel

    def next_address(self) -> None:
        """Turn to the next address: this one does not answer."""
        self._index = (self._index + 1) % len(self.addresses)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _make(self) -> grpc.aio.Channel:
        options = [*OPTIONS]
        if self._server_name:
            options.append(("grpc.ssl_target_name_override", self._server_name))
        if self._source is None and self._roots_pem is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        if self._source is not None:
            material = self._source.current
            credentials = grpc.ssl_channel_credentials(
                material.roots_pem, material.key_pem, material.chain_pem
            )
        else:
            credentials = grpc.ssl_channel_credentials(self._roots_pem)
        return grpc.aio.secure_channel(self.address, credentials, options=options)

    def _retire(self) -> None:
        if self._channel is None:
            return
        task = asyncio.get_running_loop().create_task(self._channel.close(OLD_CHANNEL_GRACE_S))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
