import struct

from benchmarks.xds.contents import MESSAGES, readable, records, unreadable
from tests.unit.benchmarks.ads import a_listener, bring_up, endpoints, fleet_at
from windward.xds.resource import LISTENER

LISTENER_TYPE = MESSAGES[2]


def record(kind: int, body: bytes) -> bytes:
    return struct.pack("=II", kind, len(body)) + body


def test_a_listener_is_readable_only_if_what_lies_in_it_is():
    body = a_listener("l", "r").body
    assert readable(LISTENER_TYPE, body)
    broken = body.replace(
        b"\x12\x01r", b"\x12\x09r"
    )  # the route's name, deep within the manager's Any
    assert broken != body
    assert not readable(LISTENER_TYPE, broken)


def test_a_file_is_read_to_its_last_whole_record(tmp_path):
    file = tmp_path / "bodies.bin"
    good = endpoints("a", "10.0.0.1").body
    file.write_bytes(record(1, good) + record(1, b"\x0f") + record(1, good)[:-1])
    assert [body for _, body in records(file)] == [good, b"\x0f"]
    assert unreadable(file, 100) == (2, 1)
    assert unreadable(file, 1) == (1, 0)


async def test_the_fleet_keeps_every_content_once(tmp_path):
    kept = tmp_path / "bodies.bin"
    async with fleet_at(tmp_path, streams=2, bodies=kept) as (server, made):
        for stream in [await server.stream(), await server.stream()]:
            await bring_up(stream)
        await made.synced(10)
        await made.report()
        found = list(records(kept))
    assert sorted(kind for kind, _ in found) == [0, 1, 2, 3]
    assert (2, a_listener("l", "r").body) in found
    assert LISTENER.endswith(LISTENER_TYPE.DESCRIPTOR.full_name)
