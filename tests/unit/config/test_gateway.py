"""Gateway's rules: ports, hosts, sockets, and where TLS has its certificates from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.config import judging
from windward.config.decode import decode_object
from windward.config.gateway import CIPHER_SUITES

FILES = {"serverCertificate": "/cert", "privateKey": "/key"}
PLAIN = {"number": 80, "name": "http", "protocol": "HTTP"}
SECURE = {"number": 443, "name": "https", "protocol": "HTTPS"}


def judged(*servers: dict[str, Any], **metadata: Any) -> list[str]:
    found = judging.judged("Gateway", {"servers": list(servers)}, **metadata)
    return [item.removeprefix("servers[0].") for item in found]


def server(**fields: Any) -> dict[str, Any]:
    return {"port": PLAIN, "hosts": ["shop.example.com"], **fields}


def tls(**fields: Any) -> dict[str, Any]:
    return server(port=SECURE, tls={"mode": "SIMPLE", **fields})


@pytest.mark.parametrize(
    "good",
    [
        server(),
        server(hosts=["*", "ns/a.example.com", "*/b.example.com", "./*.example.com", "10.0.0.1"]),
        server(bind="127.0.0.1"),
        server(port={"name": "http", "protocol": "HTTP"}, bind="unix:///run/socket"),
        server(port={"name": "http", "protocol": "HTTP"}, bind="unix://@abstract"),
        server(tls={"httpsRedirect": True}),
        tls(**FILES),
        tls(**FILES, caCertificates="/ca"),
        tls(credentialName="shop", cipherSuites=["ECDHE-RSA-AES128-SHA", "-AES128-SHA", "ALL"]),
        tls(credentialName="shop", privateKey="/key", caCrl="/crl"),
        tls(mode="MUTUAL", **FILES, caCertificates="/ca", caCrl="/crl"),
        tls(mode="MUTUAL", credentialNames=["a", "b"]),
        tls(mode="OPTIONAL_MUTUAL", tlsCertificates=[FILES, FILES], caCertCredentialName="ca"),
        tls(mode="ISTIO_MUTUAL"),
        tls(mode="PASSTHROUGH"),
        tls(**FILES, minProtocolVersion="TLSV1_2", maxProtocolVersion="TLSV1_3"),
    ],
)
def test_good_servers(good: dict[str, Any]) -> None:
    assert judged(good) == []


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (server(hosts=[]), ["hosts required"]),
        (server(hosts=["shop"]), ["hosts[0] invalid-host"]),
        (server(hosts=["a.*.com"]), ["hosts[0] invalid-host"]),
        (server(hosts=["~/a.com", "a_/b.com", "a/b/c.com"]), [f"hosts[{n}] invalid-host" for n in range(3)]),
        ({"hosts": ["a.com"]}, ["port required"]),
        (server(port={**PLAIN, "number": 0}), ["port.number out-of-range"]),
        (server(port={**PLAIN, "number": 66000}), ["port.number out-of-range"]),
        (server(port={**PLAIN, "name": ""}), ["port.name required"]),
        (server(port={**PLAIN, "protocol": "SMTP"}), ["port.protocol invalid-value"]),
        (server(port={**PLAIN, "targetPort": 1}), ["port.targetPort deprecated?"]),
        (server(bind="localhost"), ["bind invalid-value"]),
        (server(bind="unix:///run/socket"), ["port.number conflict"]),
        (server(bind="unix://run", port={"name": "http", "protocol": "HTTP"}), ["bind invalid-value"]),
        (server(bind="unix:///run/", port={"name": "http", "protocol": "HTTP"}), ["bind invalid-value"]),
        (server(port=SECURE), ["tls required"]),
        (server(tls={"mode": "SIMPLE", **FILES}), ["tls conflict"]),
        (server(tls={"privateKey": "/key"}), ["tls unreachable?", "tls conflict"]),
        (server(port={**PLAIN, "protocol": "TCP"}, tls={}), ["tls conflict"]),
        (tls(**FILES, httpsRedirect=True), ["tls.httpsRedirect unreachable?"]),
    ],
)  # fmt: skip
def test_faults_of_servers(bad: dict[str, Any], expected: list[str]) -> None:
    assert judged(bad) == expected


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({}, [".serverCertificate required", ".privateKey required"]),
        ({"serverCertificate": "/cert"}, [".privateKey required"]),
        ({"tlsCertificates": [{"privateKey": "/key"}, FILES]}, [".tlsCertificates[0].serverCertificate required"]),
        ({"tlsCertificates": [FILES, FILES, FILES]}, [" too-large?"]),
        ({"tlsCertificates": [FILES], **FILES}, [" conflict"]),
        ({"credentialName": "a", "credentialNames": ["b"]}, [" conflict"]),
        ({"credentialName": "a", "serverCertificate": "/cert"}, [" conflict"]),
        ({**FILES, "caCrl": "/crl"}, [".caCrl conflict"]),
        ({**FILES, "caCertificates": "-----BEGIN\nX"}, [" invalid-value"]),
        ({"mode": "MUTUAL", **FILES}, [".caCertificates required"]),
        ({"mode": "OPTIONAL_MUTUAL", "tlsCertificates": [FILES]}, [".caCertificates required"]),
        ({"mode": "ISTIO_MUTUAL", "credentialName": "a"}, [" conflict"]),
        ({"mode": "ISTIO_MUTUAL", "caCertificates": "/ca"}, [" conflict"]),
        ({"mode": "PASSTHROUGH", "caCrl": "/crl"}, [" unreachable?"]),
        ({"mode": "AUTO_PASSTHROUGH", "credentialName": "a"}, [" unreachable?"]),
        ({**FILES, "minProtocolVersion": "TLSV1_3", "maxProtocolVersion": "TLSV1_2"}, [".minProtocolVersion out-of-range"]),
        ({**FILES, "cipherSuites": ["ROT13"]}, [".cipherSuites[0] invalid-value?"]),
        ({**FILES, "cipherSuites": ["AES128-SHA", "AES128-SHA"]}, [".cipherSuites[1] duplicate?"]),
    ],
)  # fmt: skip
def test_faults_of_tls(bad: dict[str, Any], expected: list[str]) -> None:
    assert judged(tls(**bad)) == [f"tls{item}" for item in expected]


def test_a_gateway_has_servers_whose_port_names_differ() -> None:
    assert judged() == ["servers required"]
    assert judged(server(), server()) == ["servers[1].port.name duplicate"]
    assert judged(server(), name="a.b") == ["spec invalid-value?"]
    found = judging.judged("Gateway", {"servers": [server()], "selector": {"app": "*", "": "a"}})
    assert found == ['selector["app"] invalid-value', "selector invalid-value"]


def test_every_suite_is_known_to_the_rule() -> None:
    assert judged(tls(**FILES, cipherSuites=sorted(CIPHER_SUITES))) == []


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        (tls(mode="PASSTHROUGH"), "tls"),
        (tls(mode="AUTO_PASSTHROUGH"), "tls"),
        (server(port=SECURE, tls={}), "tls"),
        (server(port={**SECURE, "protocol": "TLS"}, tls={"mode": "ISTIO_MUTUAL"}), "port.protocol"),
    ],
)
def test_what_is_not_built_is_refused(bad: dict[str, Any], path: str) -> None:
    raw = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "g", "namespace": "n"},
        "spec": {"selector": {"a": "b"}, "servers": [bad]},
    }
    made, findings = decode_object(raw)
    assert made is None
    assert [(item.path, item.code) for item in findings] == [
        (f"spec.servers[0].{path}", "not-supported")
    ]
