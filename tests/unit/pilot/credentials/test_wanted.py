from __future__ import annotations

from services.pilot.credentials.credential import Credential
from services.pilot.credentials.wanted import absent
from tests.unit.pilot.mesh import make


def test_what_a_gateway_names_and_nobody_has():
    port = {"number": 443, "name": "https", "protocol": "HTTPS"}
    modes = [
        {"mode": "SIMPLE", "credentialName": "held"},
        {"mode": "SIMPLE", "credentialNames": ["held", "two"]},
        {"mode": "MUTUAL", "credentialName": "held", "caCertCredentialName": "ca"},
        {"mode": "ISTIO_MUTUAL"},
    ]
    servers = [
        {"port": {**port, "name": f"p{number}"}, "hosts": [f"h{number}.com"], "tls": tls}
        for number, tls in enumerate(modes)
    ]
    gateway = make("Gateway", "edge", {"selector": {"a": "b"}, "servers": servers})
    found = absent([gateway], {("any", "held"): Credential()})
    assert found == {"two": "shop/edge", "ca": "shop/edge"}
