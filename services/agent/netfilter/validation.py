"""Whether the rules really work: a connection that they must bend.

    127.0.0.1 -> 127.0.0.6:15002, as Envoy's user  ==rules==>  127.0.0.1:15006, whose socket knows the original port

Nothing listens on 15002, so without rules the connection is refused. It is made as Envoy's user, because what Envoy sends
to an address of its own machine is inbound, while an application's own loopback calls are left alone. Over IPv6: ::1 -> ::6.
Only for a workload whose Envoy does not run yet: its ports are listened on.
Source: istio tools/istio-iptables/pkg/validation/validator.go.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from services.agent.netfilter.errors import NetfilterError
from services.agent.netfilter.interception import Interception
from services.agent.netfilter.rules import Family

SO_ORIGINAL_DST = 80
"""linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST of netfilter_ipv6/ip6_tables.h."""
BETWEEN_TRIES_S = 0.1


class ValidationError(NetfilterError):
    """The rules do not do what they should."""


def validate(wanted: Interception, family: Family, probe_port: int, timeout_s: float) -> None:
    """Raises ValidationError when no probe came through the rules in time."""
    loopback = "127.0.0.1" if family is Family.V4 else "::1"
    target = "127.0.0.6" if family is Family.V4 else "::6"
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for port in (wanted.outbound_port, wanted.inbound_port):
            listener = stack.enter_context(socket.socket(_of(family), socket.SOCK_STREAM))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((loopback, port))
            except OSError as error:
                raise ValidationError(
                    f"cannot listen on {loopback} port {port} ({error.strerror}): validate before Envoy starts"
                ) from error
            listener.listen()
            selector.register(listener, selectors.EVENT_READ)
        with _as_user(wanted.uids[0]):
            _probe(selector, family, (loopback, target), probe_port, timeout_s)


@contextmanager
def _as_user(uid: int) -> Iterator[None]:
    """Sockets made within are that user's, for the rules. Raises ValidationError without the right to be it."""
    before = os.geteuid()
    try:
        os.seteuid(uid)
    except PermissionError as error:
        raise ValidationError(f"the probe must run as root, or as Envoy's user {uid}") from error
    try:
        yield
    finally:
        os.seteuid(before)


def _probe(
    selector: selectors.BaseSelector,
    family: Family,
    addresses: tuple[str, str],
    probe_port: int,
    timeout_s: float,
) -> None:
    loopback, target = addresses
    end = time.monotonic() + timeout_s
    why = "nothing arrived"
    while (left := end - time.monotonic()) > 0:
        with socket.socket(_of(family), socket.SOCK_STREAM) as client:
            client.settimeout(left)
            try:
                client.bind((loopback, 0))
                client.connect((target, probe_port))
                for key, _ in selector.select(BETWEEN_TRIES_S):
                    assert isinstance(key.fileobj, socket.socket)
                    if original_port(key.fileobj, family) == probe_port:
                        return
            except OSError as error:
                why = error.strerror or str(error)
        time.sleep(min(BETWEEN_TRIES_S, max(0.0, end - time.monotonic())))
    raise ValidationError(
        f"a connection to {target} port {probe_port} did not come to Envoy's ports within {timeout_s:g} s ({why}): "
        "the rules are missing or others come before them; see `check`"
    )


def original_port(listener: socket.socket, family: Family) -> int:
    """Where the next connection wanted to go, before the rules bent it; its own port when they did not."""
    level = socket.SOL_IP if family is Family.V4 else socket.IPPROTO_IPV6
    connection, _ = listener.accept()
    with connection:
        answer = connection.getsockopt(level, SO_ORIGINAL_DST, 28)
    port: int = struct.unpack_from("!2xH", answer)[0]
    return port


def _of(family: Family) -> socket.AddressFamily:
    return socket.AF_INET if family is Family.V4 else socket.AF_INET6
