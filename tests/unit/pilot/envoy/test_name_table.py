import pytest

from services.agent.dns import message
from services.agent.dns.table import NameTable
from services.pilot.envoy.name_table import MOST_ADDRESSES, name_table
from services.pilot.model.service import Endpoint
from services.pilot.model.vips import Vips
from tests.unit.pilot.model.test_vips import a_service, at
from windward.api.istio.networking.nds.v1 import nds_pb2
from windward.config.service_entry import Resolution
from windward.xds.resource import NAME_TABLE


def entry(service, endpoints=(), vips=()):
    made = name_table(service, endpoints, vips)
    assert made is not None
    table = nds_pb2.NameTable.FromString(made.body).table
    assert list(table) == [service.host] == [made.name]
    return table[service.host]


def endpoint(address, *, healthy=True) -> Endpoint:
    return Endpoint(
        address=address,
        ports={},
        labels={},
        service_account="",
        namespace="shop",
        workload=address,
        healthy=healthy,
    )


def test_the_services_own_addresses_come_first():
    service = a_service(addresses=("10.0.0.1", "fd00::1"))
    made = name_table(service, [endpoint("10.9.9.9")], ["240.240.0.1"])
    assert made is not None
    assert made.type_url == NAME_TABLE
    assert made.origins == (service.origin,)
    assert entry(service, [endpoint("10.9.9.9")], ["240.240.0.1"]).ips == ["10.0.0.1", "fd00::1"]


def test_then_the_virtual_ones():
    vips = Vips().changed({"db.example.com": at(0)})
    given = vips.addresses("db.example.com")
    assert entry(a_service(), [endpoint("10.9.9.9")], given).ips == list(given)


HEADLESS = a_service(resolution=Resolution.NONE)


def test_then_those_of_a_headless_services_endpoints_that_are_up_in_a_fixed_order():
    endpoints = [endpoint("10.0.0.3"), endpoint("10.0.0.2", healthy=False), endpoint("10.0.0.1")]
    assert entry(HEADLESS, endpoints).ips == ["10.0.0.1", "10.0.0.3"]
    assert name_table(HEADLESS, endpoints) == name_table(HEADLESS, endpoints[::-1])
    down = [endpoint("10.0.0.2", healthy=False)]
    assert entry(HEADLESS, down).ips == ["10.0.0.2"]


@pytest.mark.parametrize(
    ("service", "endpoints"),
    [
        (a_service(), [endpoint("10.0.0.1")]),
        (HEADLESS, []),
        (a_service(resolution=Resolution.DNS), [endpoint("db.elsewhere.example.com")]),
        (a_service(addresses=("10.0.0.0/8",)), []),
        (HEADLESS, [endpoint("unix:///run/db.sock")]),
    ],
)
def test_without_an_address_the_name_is_somebody_elses(service, endpoints):
    assert name_table(service, endpoints) is None


def test_more_addresses_than_an_answer_holds_are_left_out():
    many = [endpoint(f"10.{n // 65536}.{n // 256 % 256}.{n % 256}") for n in range(1500)]
    assert len(entry(HEADLESS, many).ips) == MOST_ADDRESSES


@pytest.mark.parametrize(
    ("host", "short"),
    [
        ("db.shop.svc.cluster.local", "db"),
        ("db.shop.svc.mesh.example", "db"),
        ("db.other.svc.cluster.local", ""),
        ("db.shop.svc", ""),
        ("db.shop.example.com", ""),
    ],
)
def test_hosts_of_kubernetes_form_have_a_short_name(host, short):
    made = entry(a_service(host=host, addresses=("10.0.0.1",)))
    assert (made.shortname, made.namespace) == (short, "shop" if short else "")


def test_the_agents_table_answers_what_was_built():
    table = NameTable(namespace="shop", domain="cluster.local")
    service = a_service(host="db.shop.svc.cluster.local", addresses=("10.0.0.1",))
    made = name_table(service, ())
    assert made is not None
    assert table.apply({made.name: made.body}, ()) == ()
    found = table.lookup(message.wire_name("db"))
    assert found is not None
    assert found.entry.v4 == (message.address_tail(bytes((10, 0, 0, 1))),)
