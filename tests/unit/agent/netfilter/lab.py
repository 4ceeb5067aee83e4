"""A pod and a peer in network namespaces, with servers, a real Envoy, and callers of any user.

    peer 10.99.0.1, fd99::1 ── veth ── pod 10.99.0.2, fd99::2
      servers on 80 and 9000             application on 8080 and 7070, Envoy on 15001 and 15006

A thread may have a network namespace and a user of its own (setns, setfsuid), so callers and servers need no processes.
"""

from __future__ import annotations

import ctypes
import http.client
import http.server
import json
import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from services.agent.envoy.process import find_envoy
from services.agent.netfilter.host import Host
from services.agent.netfilter.rules import Family
from windward.local.network import NETNS_FOLDER

T = TypeVar("T")
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
POD = {Family.V4: "10.99.0.2", Family.V6: "fd99::2"}
PEER = {Family.V4: "10.99.0.1", Family.V6: "fd99::1"}
ANY = {Family.V4: "0.0.0.0", Family.V6: "::"}
LOOPBACK = {Family.V4: "127.0.0.1", Family.V6: "::1"}
SELF = {Family.V4: "127.0.0.6", Family.V6: "::6"}
APPLICATION, ENVOY = 1000, 1337
CALL_TIMEOUT_S = 5.0
LIVE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int


def within(namespace: str, user: User, work: Callable[[], T]) -> T:
    """Do work in a thread of that namespace and user: its sockets are theirs, wherever they are used later."""

    def enter() -> T:
        with (NETNS_FOLDER / namespace).open() as file:
            if LIBC.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        LIBC.setfsgid(user.gid)
        LIBC.setfsuid(user.uid)
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter).result()


def address_family(family: Family) -> socket.AddressFamily:
    return socket.AF_INET if family is Family.V4 else socket.AF_INET6


def get(host: str, port: int, path: str = "/", timeout_s: float = CALL_TIMEOUT_S) -> str:
    """The body of an HTTP answer, or what went wrong, as text."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"connection": "close"})
        answer = connection.getresponse()
        body = answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return body if answer.status == 200 else f"{answer.status}: {body}"


class _Report(http.server.BaseHTTPRequestHandler):
    """Says who called, and which part of the mesh the call came through."""

    def do_GET(self) -> None:
        answer = {
            "server": self.server.server_name,  # type: ignore[attr-defined]
            "peer": self.client_address[0].removeprefix("::ffff:"),
            "through": self.headers.get("x-mesh"),
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


class Lab:
    """The two namespaces, made by ``lab()``."""

    def __init__(self, pod: str, peer: str, stack: ExitStack) -> None:
        self.pod, self.peer = pod, peer
        self.host = Host(("ip", "netns", "exec", pod), NETNS_FOLDER / pod)
        self._stack = stack
        self._log = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "envoy.log"

    def serve(self, namespace: str, name: str, port: int) -> None:
        """An HTTP server for both families."""

        def listen() -> socket.socket:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)

        server = http.server.ThreadingHTTPServer(("", 0), _Report, bind_and_activate=False)
        server.socket.close()
        server.socket = within(namespace, User(APPLICATION, APPLICATION), listen)
        server.server_name = name
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.server_close()

        self._stack.callback(stop)

    def call(self, namespace: str, user: User, host: str, port: int, path: str = "/") -> str:
        return within(namespace, user, lambda: get(host, port, path))

    def start_envoy(self, config: dict[str, Any], user: User, *, net_admin: bool = False) -> bool:
        """Whether it is live; False when it ended instead."""
        capability = (
            ("--inh-caps", "+net_admin", "--ambient-caps", "+net_admin") if net_admin else ()
        )
        # By an open file: that user may not be able to walk to the binary.
        binary = os.open(find_envoy(""), os.O_RDONLY)
        try:
            with self._log.open("wb") as log:
                process = subprocess.Popen(
                    ["ip", "netns", "exec", self.pod, "setpriv", "--reuid", str(user.uid), "--regid", str(user.gid),
                     "--clear-groups", *capability, "--pdeathsig", "KILL", f"/proc/self/fd/{binary}",
                     "--config-yaml", json.dumps(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"],
                    stdout=log, stderr=log, pass_fds=(binary,),
                )  # fmt: skip
        finally:
            os.close(binary)

        def stop() -> None:
            process.terminate()
            process.wait(20)

        self._stack.callback(stop)
        end = time.monotonic() + LIVE_TIMEOUT_S
        while process.poll() is None and time.monotonic() < end:
            if self.call(self.pod, User(0, 0), "127.0.0.1", 15000, "/ready").strip() == "LIVE":
                return True
            time.sleep(0.05)
        return False

    @property
    def envoy_log(self) -> str:
        return self._log.read_text(errors="replace")

    def taken(self, family: Family) -> dict[str, int]:
        """Port -> connections that its listener took."""
        name = "0.0.0.0" if family is Family.V4 else "[__]"
        path = "/stats?format=json&filter=^listener\\..*\\.downstream_cx_total$"
        answer = json.loads(self.call(self.pod, User(0, 0), "127.0.0.1", 15000, path))
        counts = {stat["name"]: int(stat["value"]) for stat in answer["stats"]}
        return {
            port: counts.get(f"listener.{name}_{port}.downstream_cx_total", 0)
            for port in ("80", "15001", "15006")
        }


@contextmanager
def lab() -> Iterator[Lab]:
    """Namespaces with unique names, removed whatever happens."""
    tag = secrets.token_hex(3)
    pod, peer = f"ww-lab-{tag}-pod", f"ww-lab-{tag}-peer"
    with ExitStack() as stack:
        for name in (pod, peer):
            subprocess.run(["ip", "netns", "add", name], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", name], check=True)
        lines = [f"link add eth0 type veth peer name eth0 netns {peer}"]
        subprocess.run(
            ["ip", "-n", pod, "-batch", "-"], input="\n".join(lines), text=True, check=True
        )
        for name, addresses in ((pod, POD), (peer, PEER)):
            lines = [
                "link set lo up",
                "link set eth0 up",
                f"addr add {addresses[Family.V4]}/24 dev eth0",
            ]
            lines.append(f"addr add {addresses[Family.V6]}/64 dev eth0 nodad")
            subprocess.run(
                ["ip", "-n", name, "-batch", "-"], input="\n".join(lines), text=True, check=True
            )
        yield Lab(pod, peer, stack)


def envoy_config(*, tproxy: bool) -> dict[str, Any]:
    """Envoy as a sidecar has it, for both families: what Pilot makes, in the few parts that interception needs."""
    return {
        "admin": {"address": _address("127.0.0.1", 15000)},
        "static_resources": {
            "listeners": [
                listener for family in Family for listener in _listeners(family, tproxy=tproxy)
            ],
            "clusters": [
                _original_destination("passthrough"),
                *(
                    _original_destination(f"inbound{family}", "" if tproxy else SELF[family])
                    for family in Family
                ),
            ],
        },
    }


def _listeners(family: Family, *, tproxy: bool) -> list[dict[str, Any]]:
    filters: list[dict[str, Any]] = [_typed("listener.original_dst", "original_dst.v3.OriginalDst")]
    if tproxy:
        filters.append(_typed("listener.original_src", "original_src.v3.OriginalSrc", mark=1337))
    return [
        {
            "name": f"outbound{family}",
            "address": _address(ANY[family], 15001),
            "use_original_dst": True,
            "filter_chains": [{"filters": [_tcp("passthrough")]}],
        },
        {
            "name": f"outbound{family}-80",
            "address": _address(ANY[family], 80),
            "bind_to_port": False,
            "filter_chains": [{"filters": [_http("passthrough", "outbound-80")]}],
        },
        {
            "name": f"inbound{family}",
            "address": _address(ANY[family], 15006),
            "transparent": tproxy,
            "listener_filters": filters,
            "filter_chains": [
                {
                    "filter_chain_match": {"destination_port": 8080},
                    "filters": [_http(f"inbound{family}", "inbound-8080")],
                }
            ],
            "default_filter_chain": {"filters": [_tcp(f"inbound{family}")]},
        },
    ]


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _typed(name: str, message: str, **fields: Any) -> dict[str, Any]:
    kind, _, _ = name.rpartition(".")
    extension = {
        "listener": "filters.listener",
        "network": "filters.network",
        "http": "filters.http",
    }[kind]
    url = f"type.googleapis.com/envoy.extensions.{extension}.{message}"
    return {"name": f"envoy.filters.{name}", "typed_config": {"@type": url, **fields}}


def _tcp(cluster: str) -> dict[str, Any]:
    return _typed("network.tcp_proxy", "tcp_proxy.v3.TcpProxy", stat_prefix="tcp", cluster=cluster)


def _http(cluster: str, through: str) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    return _typed(
        "network.http_connection_manager",
        "http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        http_filters=[_typed("http.router", "router.v3.Router")],
        route_config={
            "request_headers_to_add": [{"header": {"key": "x-mesh", "value": through}}],
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
    )


def _original_destination(name: str, source: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "2s",
    }
    if source:
        made["upstream_bind_config"] = {"source_address": {"address": source, "port_value": 0}}
    return made
