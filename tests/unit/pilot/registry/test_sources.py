"""Registries as the settings write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.pilot.registry.consul_client import ConsulRegistry
from services.pilot.registry.dns import DnsName
from services.pilot.registry.protocol import Sources
from services.pilot.registry.sources import _token, dns_name, dns_server, parse_sources
from services.pilot.settings import Settings


def test_none_is_the_mesh_alone():
    assert parse_sources([]) == Sources((), ("mesh",))


def test_the_mesh_comes_first_unless_named():
    made = parse_sources(["file:/etc/mesh", "dns:db.example.com:5432"])
    assert made.order == ("mesh", "file:/etc/mesh", "dns:db.example.com")
    assert tuple(item.name for item in made.registries) == made.order[1:]
    made = parse_sources(["consul:http://127.0.0.1:8500?dc=dc2", "mesh"])
    assert made.order == ("consul:http://127.0.0.1:8500?dc=dc2", "mesh")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("db.example.com:5432", DnsName("db.example.com", 5432, "TCP")),
        ("DB.example.com.:80/http", DnsName("db.example.com", 80, "HTTP")),
        ("_http._tcp.web.example.com", DnsName("_http._tcp.web.example.com", 0, "HTTP")),
        ("_grpc._tcp.web.example.com:90", DnsName("_grpc._tcp.web.example.com", 90, "GRPC")),
        ("_ldap._tcp.a.com/tls", DnsName("_ldap._tcp.a.com", 0, "TLS")),
        ("_ldap._tcp.a.com", DnsName("_ldap._tcp.a.com", 0, "TCP")),
    ],
)
def test_dns_names(text, name):
    assert dns_name(text) == name


def test_an_srv_names_host_is_what_follows_service_and_protocol():
    assert dns_name("_http._tcp.web.example.com").host == "web.example.com"


@pytest.mark.parametrize(
    "text",
    [
        "ftp:/x", "file:", "file", "", "dns:", "dns:a.com", "dns:a.com:0", "dns:a.com:65536", "dns:a.com:x",
        "dns:a.com:²", "dns:a b.com:80", "dns:10.0.0.1:80", "dns:a.com:80/smtp", "dns:_http.a.com", "dns:_http._tcp",
        "dns:_._tcp.a.com", "dns:*.a.com:80", "consul:", "consul:127.0.0.1:8500", "consul:http://127.0.0.1",
        "consul:ftp://a:1", "consul:http://a:x", "consul:http://a:1/path", "consul:http://a:1?x=1",
        "consul:http://a:1?dc=A_B", "consul:http://user:secret@a:1", "consul:http://:80",
    ],
)  # fmt: skip
def test_what_is_written_otherwise_is_refused(text):
    with pytest.raises(ValueError, match=r".+") as caught:
        parse_sources([text])
    assert text.partition(":")[2] in str(caught.value)


@pytest.mark.parametrize("twice", ["mesh", "file:/a", "dns:a.com:80"])
def test_nothing_stands_twice(twice):
    with pytest.raises(ValueError, match="stands twice"):
        parse_sources([twice, twice])


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("10.0.0.2", ("10.0.0.2", 53)),
        ("10.0.0.2:5353", ("10.0.0.2", 5353)),
        ("::1", ("::1", 53)),
        ("[::1]", ("::1", 53)),
        ("[::1]:54", ("::1", 54)),
    ],
)
def test_dns_servers(text, server):
    assert dns_server(text) == server


@pytest.mark.parametrize(
    "text", ["", "a.com", "10.0.0.2:", "10.0.0.2:x", "10.0.0.2:0", "[::1", "[::1]x", "1.1.1.1:2:3"]
)
def test_other_dns_servers_are_refused(text):
    with pytest.raises(ValueError, match="DNS server"):
        dns_server(text)


def test_a_token_is_read_when_it_is_needed(tmp_path: Path):
    file = tmp_path / "token"
    made = parse_sources(["consul:http://127.0.0.1:8500"], (), str(file))
    assert isinstance(made.registries[0], ConsulRegistry)
    read = _token(str(file))
    with pytest.raises(FileNotFoundError):
        read()
    file.write_text("secret\n")
    assert read() == "secret"
    assert _token("")() == ""


def a_pilot(**over: object) -> Settings:
    base: dict[str, object] = {"store": "memory:", "citadel_address": "a:1", "citadel_mtls_address": "a:2",
                               "trust_bundle_file": "r", "token_file": "t", "state_dir": "s"}  # fmt: skip
    return Settings(**base | over)  # type: ignore[arg-type]


def test_pilots_settings_name_the_flag_that_is_wrong():
    assert a_pilot(registry=("file:/a",)).sources().order == ("mesh", "file:/a")
    with pytest.raises(ValueError, match=r"^--registry: 'x' is no registry"):
        a_pilot(registry=("x",))
    with pytest.raises(ValueError, match=r"^--dns-resolvers: 'x' is not a DNS server"):
        a_pilot(dns_resolvers=("x",))
