"""gRPC over HTTP/2 for servers with thousands of quiet streams, of which a change wakes all at once.

    listening socket ─► Poller ─► Transport (TLS) ─► Connection (frames, windows) ─► Call ─► behaviour
                                     bytes              one thread, no queue between       callbacks or a coroutine

Why not grpc.aio: ``docs/decisions/0010-a-transport-of-its-own.md``. Sources: RFC 9113 (HTTP/2), RFC 7541 (HPACK, by the
``hpack`` library), gRPC's "PROTOCOL-HTTP2.md".
"""
