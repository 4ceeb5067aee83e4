import msgspec
import pytest
from dnslib import RCODE
from prometheus_client import CollectorRegistry, generate_latest

from services.agent.dns import resolv
from services.agent.dns.workload import debug_routes, workload_dns
from tests.unit.agent.dns.resolver import question
from tests.unit.agent.dns.test_proxy import over_udp, records
from tests.unit.agent.dns.test_table import one, service
from tests.unit.agent.settings import settings
from windward.process import FatalError
from windward.rpc.http import Request


def made(tmp_path, **changes):
    conf = tmp_path / "resolv.conf"
    conf.write_text("search a..b example.org\n")
    given = {"dns_capture": True, "dns_address": "127.0.0.1:0", "dns_resolv_conf": str(conf)}
    return settings(**given | changes)


async def test_names_that_come_are_answered_counted_and_shown(tmp_path):
    registry = CollectorRegistry()
    async with workload_dns(made(tmp_path), registry) as (dns, port):
        assert dns is not None
        dns.names(service("reviews", "shop", "10.0.0.1", "fd00::1"), ())
        assert records(await over_udp(question("reviews"), port)) == [("reviews.", "A", "10.0.0.1")]
        alias = await over_udp(question("reviews.example.org"), port)
        assert [kind for _, kind, _ in records(alias)] == ["CNAME", "A"]
        host = "reviews.shop.svc.cluster.local"
        assert dns.view() == {host: {"addresses": ["10.0.0.1"], "host": host, "resource": host}}
        dns.names({}, [host])
        assert dns.view() == {}
    text = generate_latest(registry).decode()
    assert 'windward_agent_dns_requests_total{answered="own"} 2.0' in text
    assert 'windward_agent_dns_request_duration_seconds_count{answered="own"} 2.0' in text
    assert "windward_agent_dns_names 0.0" in text


async def test_names_are_shown_to_this_machine_alone(tmp_path):
    async with workload_dns(made(tmp_path), CollectorRegistry()) as (dns, _):
        assert dns is not None
        dns.names(one("db.example.com", "10.0.0.1"), ())
        show = debug_routes(dns)["GET", "/debug/ndsz"]
        shown = await show(Request("GET", "/debug/ndsz", {}, "127.0.0.1"))
        assert msgspec.json.decode(shown.body)["db.example.com"]["addresses"] == ["10.0.0.1"]
        assert (await show(Request("GET", "/debug/ndsz", {}, "10.0.0.2"))).status == 403
    without = debug_routes(None)["GET", "/debug/ndsz"]
    assert (await without(Request("GET", "/debug/ndsz", {}, "::1"))).status == 404


async def test_a_search_domain_that_is_new_is_learnt(tmp_path, monkeypatch):
    monkeypatch.setattr(resolv, "LOOK_AGAIN_S", 0.0)
    given = made(tmp_path)
    async with workload_dns(given, CollectorRegistry()) as (dns, port):
        assert dns is not None
        dns.names(one("db.example.com", "10.0.0.1"), ())
        (tmp_path / "resolv.conf").write_text("search moved.example.net\n")
        alias = question("db.example.com.moved.example.net")
        assert (await over_udp(alias, port)).header.rcode == RCODE.SERVFAIL
        assert [kind for _, kind, _ in records(await over_udp(alias, port))] == ["CNAME", "A"]


async def test_a_workload_of_both_families_is_told_both(tmp_path):
    both = made(tmp_path, instance_ips=("10.0.0.7", "fd00::7"))
    async with workload_dns(both, CollectorRegistry()) as (dns, port):
        assert dns is not None
        dns.names(service("reviews", "shop", "10.0.0.1", "fd00::1"), ())
        reply = await over_udp(question("reviews", "AAAA"), port)
        assert records(reply) == [("reviews.", "AAAA", "fd00::1")]


async def test_a_name_table_that_cannot_be_used_is_refused_by_name_and_hurts_no_other(tmp_path):
    async with workload_dns(made(tmp_path), CollectorRegistry()) as (dns, _):
        assert dns is not None
        with pytest.raises(ValueError, match=r"^bad\.\.host: "):
            dns.names(service("reviews", "shop", "10.0.0.1") | one("bad..host"), ())
        assert list(dns.view()) == ["reviews.shop.svc.cluster.local"]


async def test_a_name_of_others_without_resolvers_is_servfail(tmp_path):
    async with workload_dns(made(tmp_path), CollectorRegistry()) as (_, port):
        assert (await over_udp(question("www.example.net"), port)).header.rcode == RCODE.SERVFAIL


@pytest.mark.parametrize("bad", [{"address": "db.example.com"}, {"dns_domain": "a..b"}])
async def test_settings_that_cannot_work_are_told(tmp_path, bad):
    with pytest.raises(FatalError, match="--address, --namespace, --dns-domain"):
        async with workload_dns(made(tmp_path, **bad), CollectorRegistry()):
            pass


async def test_nothing_listens_unless_asked_for(tmp_path):
    registry = CollectorRegistry()
    async with workload_dns(made(tmp_path, dns_capture=False), registry) as (dns, port):
        assert (dns, port) == (None, 0)
    assert b"dns" not in generate_latest(registry)
