"""Workloads that hold a stream of their certificates open, some in one process: a lean client of the SPIFFE Workload API.

    python -m benchmarks.workload_streams SOCKET FIRST_UID COUNT     (as root: each connection is made as a user of its own)

Says one line of JSON for each certificate that a stream brings: uid, time (of the clock on the wall, s), spiffe_id, not_after.
gRPC's own library would cost more than what is measured: an empty request and its answers are a handful of HTTP/2 frames.
Source: RFC 9113 sections 4 and 6, RFC 7541 section 6.2.2 (literals without indexing).
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import sys
import time

from cryptography.x509 import load_der_x509_certificate

from windward.api.spiffe.workload import workload_pb2

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
STREAM = 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/SpiffeWorkloadAPI/FetchX509SVID"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"workload.spiffe.io", b"true"),
)
EMPTY_MESSAGE = bytes(5)


class Ended(Exception):
    """The stream is over."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes((kind, flags))
        + struct.pack(">I", stream)
        + payload
    )


def opening() -> bytes:
    """All that a client has to say at first."""
    block = b"".join(
        bytes((0, len(name))) + name + bytes((len(value),)) + value for name, value in REQUEST
    )
    return (
        PREFACE
        + frame(SETTINGS, 0, 0)
        + frame(HEADERS, END_HEADERS, STREAM, block)
        + frame(DATA, END_STREAM, STREAM, EMPTY_MESSAGE)
    )


class Watched:
    """One stream, from bytes in to messages out; says what has to be answered. No I/O."""

    def __init__(self) -> None:
        self._bytes, self._messages = bytearray(), bytearray()

    def take(self, data: bytes) -> tuple[bytes, list[bytes]]:
        """(bytes to send, gRPC messages that are whole); no bytes are the end. Raises Ended."""
        if not data:
            raise Ended
        self._bytes += data
        answers, messages = [], []
        while len(self._bytes) >= 9:
            length = int.from_bytes(self._bytes[:3], "big")
            if len(self._bytes) < 9 + length:
                break
            kind, flags = self._bytes[3], self._bytes[4]
            payload = bytes(self._bytes[9 : 9 + length])
            del self._bytes[: 9 + length]
            if kind in {SETTINGS, PING} and not flags & ACK:
                answers.append(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == DATA and length:
                grown = struct.pack(">I", length)
                answers += [
                    frame(WINDOW_UPDATE, 0, 0, grown),
                    frame(WINDOW_UPDATE, 0, STREAM, grown),
                ]
                self._messages += payload
                messages += self._whole()
            elif kind in {RST_STREAM, GOAWAY} or (kind == HEADERS and flags & END_STREAM):
                raise Ended
        return b"".join(answers), messages

    def _whole(self) -> list[bytes]:
        found = []
        while len(self._messages) >= 5:
            length = int.from_bytes(self._messages[1:5], "big")
            if len(self._messages) < 5 + length:
                break
            found.append(bytes(self._messages[5 : 5 + length]))
            del self._messages[: 5 + length]
        return found


def connect(path: str, uid: int) -> socket.socket:
    """The kernel tells the other side the user that this process has at that moment."""
    made = socket.socket(socket.AF_UNIX)
    os.seteuid(uid)
    try:
        made.connect(path)
    finally:
        os.seteuid(0)
    made.sendall(opening())
    return made


def main(path: str, first: int, count: int) -> None:
    selector = selectors.DefaultSelector()
    for uid in range(first, first + count):
        selector.register(connect(path, uid), selectors.EVENT_READ, (uid, Watched()))
    while selector.get_map():
        for key, _ in selector.select():
            peer = key.fileobj
            assert isinstance(peer, socket.socket)
            uid, watched = key.data
            try:
                answer, messages = watched.take(peer.recv(65536))
                peer.sendall(answer)
            except (Ended, OSError):
                print(json.dumps({"uid": uid, "time": time.time(), "ended": True}), flush=True)
                selector.unregister(peer)
                peer.close()
                continue
            now = time.time()
            for message in messages:
                svid = workload_pb2.X509SVIDResponse.FromString(message).svids[0]
                until = load_der_x509_certificate(svid.x509_svid).not_valid_after_utc
                said = {
                    "uid": uid,
                    "time": now,
                    "spiffe_id": svid.spiffe_id,
                    "not_after": until.timestamp(),
                }
                print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
