"""The pages: our names and Istio's, guarded all of them, over HTTP and over TLS with a certificate."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from pathlib import Path

import msgspec
import pytest

from services.pilot.admin.doorkeeper import Doorkeeper
from services.pilot.admin.routes import ISTIO, debug_routes
from services.pilot.admin.views import VIEWS, read
from services.pilot.api.access import Access
from tests.unit.pilot.mesh import service_entry, sidecar
from tests.unit.pilot_admin.world import PILOT, World, running
from tests.unit.pilot_api.callers import TRUST_DOMAIN
from tests.unit.rpc.pki import DNS, Authority
from windward.identity.names import ADMIN_ACCOUNT, ROOT_NAMESPACE
from windward.rpc.credentials import TlsMaterial
from windward.rpc.http import Request, http_at

TOKEN = "t" * 43
LET_IN = {"authorization": f"Bearer {TOKEN}"}


async def get(world: World, path: str, **query: str) -> tuple[int, str]:
    routes = debug_routes(
        PILOT, partial(read, world.observed), Doorkeeper(Access(TRUST_DOMAIN), TOKEN)
    )
    asked = {key: [value] for key, value in query.items()}
    answer = await routes["GET", path](Request("GET", path, asked, "127.0.0.1", LET_IN))
    return answer.status, answer.body.decode()


async def test_every_page_is_guarded():
    async with running() as world:
        routes = debug_routes(
            PILOT, partial(read, world.observed), Doorkeeper(Access(TRUST_DOMAIN), TOKEN)
        )
        for (method, path), handler in routes.items():
            assert method == "GET"
            assert (await handler(Request("GET", path, {}, "127.0.0.1"))).status == 401
        assert {path for _, path in routes} == {
            "/debug",
            "/debug/",
            *(f"/debug/{name}" for name in (*VIEWS, *ISTIO)),
        }


async def test_the_index_names_every_page():
    async with running() as world:
        status, body = await get(world, "/debug/")
        assert status == 200
        for name in (*VIEWS, *ISTIO):
            assert f"<a href=/debug/{name}>" in body


async def test_istios_paths_give_what_ours_give():
    async with running() as world:
        await world.put(service_entry())
        follower = await world.follow(sidecar())
        follower.answer()
        for path, view in ISTIO.items():
            query = {"proxyID": follower.proxy.id} if view == "config" else {}
            status, body = await get(world, f"/debug/{path}", **query)
            made = msgspec.json.decode(body)
            assert (status, made["view"], made["pilot"]) == (200, view, PILOT)
            assert made["items"] or view == "endpoints"


async def test_what_is_cut_off_says_so():
    async with running() as world:
        await world.put(service_entry(), service_entry("ratings"))
        for limit, count in (("1", 1), ("2", 2)):
            _, body = await get(world, "/debug/services", limit=limit)
            made = msgspec.json.decode(body)
            assert (len(made["items"]), made["truncated"]) == (count, count == 1)


@pytest.mark.parametrize(
    ("path", "query", "status", "words"),
    [
        ("/debug/sync", {"limit": "many"}, 400, "is not a number"),
        ("/debug/sync", {"nonsense": "1"}, 400, "no filter"),
        ("/debug/config_dump", {}, 404, "say which proxy"),
        ("/debug/config_dump", {"proxyID": "a~b"}, 404, "no proxy"),
    ],
)
async def test_bad_questions(path, query, status, words):
    async with running() as world:
        found, body = await get(world, path, **query)
        assert found == status
        assert words in body


# ---- over the wire ----------------------------------------------------------------------------------------------------


def client(authority: Authority, me: TlsMaterial | None, folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.roots_pem.decode())
    if me is not None:
        file = folder / "me.pem"
        file.write_bytes(me.key_pem + b"\n" + me.chain_pem)
        context.load_cert_chain(file)
    return context


async def fetch(port: int, context: ssl.SSLContext | None, path: str) -> bytes:
    """The status line; empty when the connection is refused."""
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=DNS if context else None
        )
    except (ssl.SSLError, ConnectionError):
        return b""
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return await reader.readline()
    except (ssl.SSLError, ConnectionError):
        return b""
    finally:
        writer.close()


async def test_one_port_serves_plain_and_tls_and_the_certificate_decides(tmp_path):
    authority, stranger = Authority(), Authority()
    own = authority.material("pilot", DNS)
    admin = authority.material(ADMIN_ACCOUNT, namespace=ROOT_NAMESPACE)
    callers = {
        "plain": None,
        "nobody": client(authority, None, tmp_path),
        "workload": client(authority, authority.material("reviews"), tmp_path),
        "administrator": client(authority, admin, tmp_path),
        "stranger": client(
            authority, stranger.material(ADMIN_ACCOUNT, namespace=ROOT_NAMESPACE), tmp_path
        ),
    }
    async with running() as world:
        routes = debug_routes(
            PILOT, partial(read, world.observed), Doorkeeper(Access(TRUST_DOMAIN))
        )
        async with http_at(
            "127.0.0.1:0", routes, setting="--metrics-address", tls=lambda: own
        ) as port:
            found = {name: await fetch(port, tls, "/debug/") for name, tls in callers.items()}
    words = {name: line.split(b" ")[1] if line else b"" for name, line in found.items()}
    assert words == {
        "plain": b"401",
        "nobody": b"401",
        "workload": b"403",
        "administrator": b"200",
        "stranger": b"",
    }
