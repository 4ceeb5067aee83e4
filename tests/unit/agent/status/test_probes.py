"""The application's probes, asked for kubelet."""

from __future__ import annotations

import json
import ssl
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc

from services.agent.status.probes import AppProbes, BadProbes, parse_probes
from tests.unit.agent.status.serving import answering, http
from tests.unit.rpc.pki import Authority
from windward.rpc.http import Request, Response

PATH = "/app-health/web/livez"


def probes(probe: dict[str, Any]) -> AppProbes:
    return AppProbes(parse_probes(json.dumps({PATH: probe})), "127.0.0.1", 15020)


async def ask(probe: dict[str, Any], path: str = PATH, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await probes(probe).answer(Request("GET", path, {}, "10.0.0.1", named))


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        ({"host": "10.0.0.7:15020"}, "10.0.0.7:{port}"),
        ({"host": "shop.example:8080"}, "shop.example:8080"),
        ({"host": "shop.example"}, "shop.example"),
        ({}, "127.0.0.1:{port}"),
    ],
)
async def test_what_kubelet_sends_is_passed_on(given, arrives):
    async with answering(http(202, b"fine", content_type="text/html")) as app:
        probe = {"httpGet": {"path": "healthy?deep=1", "port": app.port}}
        said = await ask(probe, user_agent="kube-probe/1.31", connection="close", **given)
    assert (said.status, said.body, said.content_type) == (202, b"fine", "text/html")
    assert app.heads[0].startswith("GET /healthy?deep=1 HTTP/1.1")
    assert app.headers()["host"] == arrives.format(port=app.port)
    assert app.headers()["user-agent"] == "kube-probe/1.31"
    assert app.peers == ["127.0.0.6"], "only this source is let past interception"


@pytest.mark.parametrize("status", [200, 404, 500, 503])
async def test_the_applications_status_is_kubelets(status):
    async with answering(http(status)) as app:
        assert (await ask({"httpGet": {"port": app.port}})).status == status


async def test_a_long_body_is_cut_off():
    async with answering(http(200, b"x" * 20000)) as app:
        assert (await ask({"httpGet": {"port": app.port}})).body == b"x" * 10240


async def test_a_redirect_elsewhere_is_an_answer():
    for location in ("https://login.example/", "http://10.1.1.1:80/"):
        async with answering(http(302, location=location)) as app:
            assert (await ask({"httpGet": {"port": app.port}})).status == 200
            assert len(app.heads) == 1


async def test_a_redirect_on_the_application_is_followed_and_not_for_ever():
    async with answering(http(302, location="/deeper"), http(503)) as app:
        assert (await ask({"httpGet": {"port": app.port}})).status == 503
        assert app.heads[1].startswith("GET /deeper ")
    async with answering(http(302, location="/again")) as app:
        said = await ask({"httpGet": {"port": app.port}})
        assert (said.status, len(app.heads)) == (500, 10)


async def test_a_port_that_takes_connections_is_healthy(unused_tcp_port):
    async with answering() as app:
        assert (await ask({"tcpSocket": {"port": app.port}})).status == 200
    assert (await ask({"tcpSocket": {"port": unused_tcp_port}})).status == 500


async def test_health_over_grpc():
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    assert (await ask({"grpc": {"port": port}})).status == 200
    assert (await ask({"grpc": {"port": port, "service": "other"}})).status == 500
    await server.stop(None)
    assert (await ask({"grpc": {"port": port}})).status == 500


async def test_https_is_not_verified(tmp_path):
    """As kubelet does: the certificate is of an authority nobody knows."""
    material = Authority().material("web")
    (tmp_path / "both.pem").write_bytes(material.key_pem + material.chain_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    async with answering(http(200, b"safe"), tls=context) as app:
        said = await ask({"httpGet": {"port": app.port, "scheme": "HTTPS"}})
    assert (said.status, said.body) == (200, b"safe")


async def test_what_does_not_answer_fails():
    async with answering(b"garbage") as app:
        assert (await ask({"httpGet": {"port": app.port}})).status == 500


async def test_only_what_is_configured_can_be_asked():
    probe = {"tcpSocket": {"port": 1}}
    assert (await ask(probe, "/app-health/other/livez")).status == 400
    assert (await ask(probe, "/app-health/web/livez/x")).status == 404
    assert (await ask(probe, "/")).status == 404


@pytest.mark.parametrize(
    ("path", "probe", "said"),
    [
        ("/healthy", {"tcpSocket": {"port": 1}}, "must match"),
        ("/app-health/web/other", {"tcpSocket": {"port": 1}}, "must match"),
        (PATH, {}, "one of httpGet, tcpSocket and grpc"),
        (PATH, {"tcpSocket": {"port": 1}, "grpc": {"port": 1}}, "one of httpGet"),
        (PATH, {"httpGet": {"port": "http"}}, "port"),
        (PATH, {"httpGet": {"port": 0}}, "port"),
        (PATH, {"exec": {"command": ["ls"]}}, "exec"),
        (PATH, {"httpGet": {"port": 1, "scheme": "FTP"}}, "scheme"),
    ],
)
def test_what_cannot_be_asked_is_refused(path, probe, said):
    with pytest.raises(BadProbes, match=said):
        parse_probes(json.dumps({path: probe}))
    with pytest.raises(BadProbes, match="--app-probers"):
        parse_probes("{")


def test_kubernetes_default_of_the_timeout_is_a_second():
    read = parse_probes(json.dumps({PATH: {"tcpSocket": {"port": 1}}}))
    assert read[PATH].timeout_s == 1.0
    read = parse_probes(json.dumps({PATH: {"tcpSocket": {"port": 1}, "timeoutSeconds": 7}}))
    assert read[PATH].timeout_s == 7.0
    assert parse_probes("") == {}
