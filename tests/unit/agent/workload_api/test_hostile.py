"""Nobody gets another's identity: look-alikes of every kind against a real node agent, each a process of its own.

alice: a user of her own      bob: another      carol: a program, of a user who runs others too
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.unit.agent.workload_api.nodes import RunningNode, entry, running_node, token_for
from tests.unit.citadel.running import Running, citadel
from windward.store.memory import MemoryStore

pytestmark = pytest.mark.root
ALICE_UID, BOB_UID, SHARED_UID, STRANGER_UID = 41001, 41002, 41003, 41004
WAIT_S = 40.0
REPOSITORY = Path(__file__).parents[4]

BECOMING_A_USER = """
import os, socket, sys, grpc
from windward.api.spiffe.workload import workload_pb2 as api
uid, gid = int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
"""
"""Everything is imported first: the interpreter may lie where other users cannot read."""

ASKING = (
    BECOMING_A_USER
    + """
print("started", flush=True)
sys.stdin.readline()
channel = grpc.insecure_channel("unix:" + sys.argv[1])
call = channel.unary_stream("/SpiffeWorkloadAPI/FetchX509SVID", api.X509SVIDRequest.SerializeToString,
                            api.X509SVIDResponse.FromString)
try:
    print(next(call(api.X509SVIDRequest(), metadata=(("workload.spiffe.io", "true"),), timeout=20)).svids[0].spiffe_id)
except grpc.RpcError as error:
    print(error.code().name)
"""
)
"""Says that it runs, waits for a line, then asks who it is."""

CONNECTING = (
    BECOMING_A_USER
    + """
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
peer.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
assert peer.recv(9), "not served"
"""
)
"""An HTTP/2 connection that the server has answered."""

FORKED = (
    CONNECTING
    + """
if os.fork():
    os._exit(0)
while peer.recv(4096):
    pass
print("cut off", flush=True)
"""
)

BECOMING_A_SHELL = (
    CONNECTING
    + r"""
peer.set_inheritable(True)
ping = r"printf '\000\000\010\006\000\000\000\000\000pingpong' >&$0; cat <&$0 >/dev/null; echo cut off"
os.execve("/bin/sh", ["/bin/sh", "-c", ping, str(peer.fileno())], {"PATH": "/usr/bin:/bin"})
"""
)
"""The new program says PING on the connection of the one that it replaced, and reads until its end."""


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o011)
    async with citadel(tmp_path, MemoryStore(), monkeypatch) as started:
        yield started


def interpreter(folder: Path) -> Path:
    """A copy: a program of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    made = folder / "python"
    shutil.copy(Path(sys.executable).resolve(), made)
    made.chmod(0o755)
    return made


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return interpreter(tmp_path / "carol")


@pytest.fixture
async def node(running: Running, program: Path) -> AsyncIterator[RunningNode]:
    base = running.base
    for account in ("alice", "bob", "carol"):
        await token_for(running, account, base / f"{account}.token")
    entries = [
        entry("alice", base / "alice.token", ALICE_UID, gid=ALICE_UID),
        entry("bob", base / "bob.token", BOB_UID),
        entry("carol", base / "carol.token", SHARED_UID, path=str(program)),
    ]
    async with running_node(running, entries) as started:
        started.socket.parent.chmod(0o755)
        yield started


class Process:
    """A child with a user of its own that runs some Python."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    @classmethod
    async def start(
        cls,
        script: str,
        socket: Path,
        *,
        uid: int,
        gid: int | None = None,
        program: Path | None = None,
        before: tuple[str, ...] = (),
    ) -> Process:
        paths = [str(REPOSITORY), sysconfig.get_path("purelib")]
        child = await asyncio.create_subprocess_exec(
            *before,
            str(program or Path(sys.executable).resolve()),
            "-c",
            script,
            str(socket),
            str(uid),
            str(uid if gid is None else gid),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONHOME": sys.base_prefix,
                "PYTHONPATH": ":".join(paths),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )
        return cls(child)

    async def line(self) -> str:
        assert self._child.stdout is not None
        return (await asyncio.wait_for(self._child.stdout.readline(), WAIT_S)).decode().strip()

    async def answer(self) -> str:
        """Who Citadel says it is, or the status of the refusal."""
        assert await self.line() == "started"
        return await self.go()

    async def go(self) -> str:
        assert self._child.stdin is not None
        self._child.stdin.write(b"\n")
        return await self.line()

    async def end(self) -> None:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        await asyncio.wait_for(self._child.stdout.read(), WAIT_S)
        await asyncio.wait_for(self._child.wait(), WAIT_S)


def identity(account: str) -> str:
    return f"spiffe://cluster.local/ns/shop/sa/{account}"


async def test_each_gets_its_own_and_strangers_get_none(node: RunningNode, program: Path):
    other = interpreter(program.parent.parent / "other")
    children = [
        await Process.start(ASKING, node.socket, uid=ALICE_UID),
        await Process.start(ASKING, node.socket, uid=BOB_UID),
        await Process.start(ASKING, node.socket, uid=SHARED_UID, program=program),
        await Process.start(ASKING, node.socket, uid=SHARED_UID, program=other),
        await Process.start(ASKING, node.socket, uid=ALICE_UID, gid=BOB_UID),
        await Process.start(ASKING, node.socket, uid=STRANGER_UID, gid=ALICE_UID),
        await Process.start(ASKING, node.socket, uid=STRANGER_UID, program=program),
        await Process.start(ASKING, node.socket, uid=0),
    ]
    found = [await child.answer() for child in children]
    for child in children:
        await child.end()
    assert found == [identity("alice"), identity("bob"), identity("carol"), *["PERMISSION_DENIED"] * 5]  # fmt: skip


async def test_a_program_that_was_deleted_or_replaced_is_nobodys(node: RunningNode, program: Path):
    deleted = await Process.start(ASKING, node.socket, uid=SHARED_UID, program=program)
    assert await deleted.line() == "started"
    program.unlink()
    assert await deleted.go() == "PERMISSION_DENIED"
    interpreter(program.parent)
    replaced = await Process.start(ASKING, node.socket, uid=SHARED_UID, program=program)
    assert await replaced.line() == "started"
    (program.parent / "new").symlink_to(program)
    interpreter(program.parent / "elsewhere").replace(program)
    assert await replaced.go() == "PERMISSION_DENIED"
    for child in (deleted, replaced):
        await child.end()


async def test_another_mount_namespace_gives_no_program_another_name(
    node: RunningNode, program: Path
):
    """The look-alike's /proc/PID/exe names the very path; the file there is another one."""
    other = interpreter(program.parent.parent / "other")
    mounted = (
        "unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"',
        str(other), str(program),
    )  # fmt: skip
    child = await Process.start(
        ASKING, node.socket, uid=SHARED_UID, program=program, before=mounted
    )
    assert await child.answer() == "PERMISSION_DENIED"
    await child.end()


async def test_a_connection_ends_with_the_process_that_made_it(node: RunningNode):
    """The child holds the parent's connection, and is cut off when the parent ends: its pid may become anybody's."""
    child = await Process.start(FORKED, node.socket, uid=ALICE_UID)
    assert await child.line() == "cut off"
    await child.end()


async def test_a_connection_ends_when_its_process_becomes_another_program(
    node: RunningNode, program: Path
):
    child = await Process.start(BECOMING_A_SHELL, node.socket, uid=SHARED_UID, program=program)
    assert await child.line() == "cut off"
    await child.end()


async def test_nobody_comes_past_the_acceptor(node: RunningNode):
    """The private sockets lie where only the agent's user may enter."""
    private = node.state / "workload-api" / "0.sock"
    assert private.is_socket()
    child = await Process.start(ASKING, private, uid=ALICE_UID)
    assert await child.answer() == "UNAVAILABLE"
    await child.end()
    assert private.parent.stat().st_mode & 0o777 == 0o700


async def test_files_are_not_read_for_others(node: RunningNode):
    """SDS names of files would be read with the agent's rights: another's key, for one."""
    from windward.xds.resource import SECRET

    theirs = node.state / "identities" / "shop" / "bob"
    name = f"file-cert:{theirs / 'certificate.pem'}~{theirs / 'key.pem'}"
    found = {}
    for wanted in ("default", name, "file-root:system"):
        async with grpc.aio.insecure_channel(
            f"unix:{node.state / 'workload-api' / '0.sock'}"
        ) as channel:
            call: Any = channel.unary_unary(
                "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"
            )
            found[wanted] = await _code(call(_fetch(SECRET, wanted)))
    assert found.pop("default") == "OK"
    assert set(found.values()) == {"NOT_FOUND"}


def _fetch(type_url: str, name: str) -> bytes:
    from envoy.service.discovery.v3 import discovery_pb2

    request = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=[name])
    return request.SerializeToString()


async def _code(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"
