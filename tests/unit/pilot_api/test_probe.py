import msgspec
import pytest
from google.protobuf.json_format import MessageToDict

from services.pilot.api.probe import readiness_probe
from windward.config.workload_group import ReadinessProbe


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {
                "initialDelaySeconds": 1,
                "timeoutSeconds": 2,
                "periodSeconds": 3,
                "successThreshold": 4,
                "failureThreshold": 5,
                "tcpSocket": {"host": "127.0.0.2", "port": 8080},
            },
            {
                "initialDelaySeconds": 1,
                "timeoutSeconds": 2,
                "periodSeconds": 3,
                "successThreshold": 4,
                "failureThreshold": 5,
                "tcpSocket": {"host": "127.0.0.2", "port": 8080},
            },
        ),
        (
            {
                "httpGet": {
                    "path": "/ready",
                    "port": 8080,
                    "host": "127.0.0.2",
                    "scheme": "HTTPS",
                    "httpHeaders": [{"name": "x-ask", "value": "1"}],
                }
            },
            {
                "httpGet": {
                    "path": "/ready",
                    "port": 8080,
                    "host": "127.0.0.2",
                    "tls": True,
                    "headers": ["x-ask: 1"],
                }
            },
        ),
        ({"httpGet": {"port": 80}}, {"httpGet": {"port": 80}}),
        (
            {"exec": {"command": ["test", "-f", "ready"]}},
            {"exec": {"command": ["test", "-f", "ready"]}},
        ),
        ({"grpc": {"port": 9, "service": "shop"}}, {"grpc": {"port": 9, "service": "shop"}}),
    ],
)
def test_every_field_is_passed_on(given, told):
    assert MessageToDict(readiness_probe(msgspec.convert(given, ReadinessProbe))) == told
