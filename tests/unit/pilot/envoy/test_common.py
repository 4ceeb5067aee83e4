from __future__ import annotations

import pytest
from google.protobuf import struct_pb2

from services.pilot.envoy import names
from services.pilot.envoy.common import address, ads, duration, pack, resource, sds
from windward.xds.resource import CLUSTER


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, (0, 0)), (1.5, (1, 500_000_000)), (0.001, (0, 1_000_000)), (0.3, (0, 300_000_000))],
)
def test_durations(seconds, expected):
    made = duration(seconds)
    assert (made.seconds, made.nanos) == expected


def test_equal_messages_are_equal_bytes_whatever_the_order_of_their_maps():
    keys = [f"k{number}" for number in range(50)]
    made = [
        struct_pb2.Struct(fields={key: struct_pb2.Value(string_value=key) for key in order})
        for order in (keys, list(reversed(keys)))
    ]
    assert pack(made[0]).value == pack(made[1]).value
    assert resource(CLUSTER, "c", made[0]) == resource(CLUSTER, "c", made[1])


def test_a_packed_message_is_of_its_type():
    assert pack(struct_pb2.Struct()).type_url == "type.googleapis.com/google.protobuf.Struct"


def test_addresses():
    made = address("10.0.0.1", 80).socket_address
    assert (made.address, made.port_value) == ("10.0.0.1", 80)


def test_where_configuration_and_secrets_come_from():
    assert ads().HasField("ads")
    (service,) = sds().api_config_source.grpc_services
    assert service.envoy_grpc.cluster_name == "sds-grpc"


def test_istios_names():
    assert names.outbound(80, "v1", "a.b") == "outbound|80|v1|a.b"
    assert names.sni(80, "", "a.b") == "outbound_.80_._.a.b"
    assert names.inbound(8080) == "inbound|8080||"
