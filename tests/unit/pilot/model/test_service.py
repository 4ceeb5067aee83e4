from __future__ import annotations

import pytest

from services.pilot.model.service import Protocol, Service, labels_match
from windward.config.service_entry import Resolution
from windward.xds.resource import Origin


def exported(*export_to: str) -> Service:
    origin = Origin("networking.istio.io", "ServiceEntry", "shop", "reviews")
    return Service("h", "shop", (), (), Resolution.STATIC, False, export_to, None, origin)


@pytest.mark.parametrize(
    ("export_to", "own", "other"),
    [
        ((), True, True),
        (("*",), True, True),
        ((".",), True, False),
        (("other",), False, True),
        ((".", "other"), True, True),
        (("~",), False, False),
    ],
)
def test_who_sees_a_service(export_to, own, other):
    service = exported(*export_to)
    assert service.visible_in("shop") is own
    assert service.visible_in("other") is other


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("HTTP", Protocol.HTTP),
        ("http", Protocol.HTTP),
        ("HTTP2", Protocol.HTTP2),
        ("GRPC", Protocol.HTTP2),
        ("HTTPS", Protocol.TCP),
        ("TLS", Protocol.TCP),
        ("MONGO", Protocol.TCP),
    ],
)
def test_protocols(name, protocol):
    assert Protocol.of(name) is protocol
    assert protocol.is_http is (protocol is not Protocol.TCP)


def test_labels_match_all_of_a_selector():
    assert labels_match((), {})
    assert labels_match((("a", "1"),), {"a": "1", "b": "2"})
    assert not labels_match((("a", "1"), ("b", "3")), {"a": "1", "b": "2"})
