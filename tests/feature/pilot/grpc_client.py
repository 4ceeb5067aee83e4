"""A grpc client that finds its server by xDS: reads ``TARGET [key=value ...]`` lines, calls, and prints what the server said.

Run as a process of its own: grpc reads GRPC_XDS_BOOTSTRAP_CONFIG once.
"""

from __future__ import annotations

import sys

import grpc
from grpc.experimental import insecure_channel_credentials

METHOD = "/windward.test.Who/Call"
DEADLINE_S = 20.0


def main() -> None:
    credentials = grpc.xds_channel_credentials(insecure_channel_credentials())
    channels: dict[str, grpc.Channel] = {}
    for line in sys.stdin:
        target, *words = line.split()
        if target not in channels:
            channels[target] = grpc.secure_channel(f"xds:///{target}", credentials)
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channels[target].unary_unary(METHOD)
        pairs = (word.partition("=") for word in words)
        metadata = tuple((key, value) for key, _, value in pairs)
        try:
            said = call(b"", timeout=DEADLINE_S, metadata=metadata, wait_for_ready=True).decode()
        except grpc.RpcError as error:
            said = error.code().name
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
