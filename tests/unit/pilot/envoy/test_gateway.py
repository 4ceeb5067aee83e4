"""Secure servers of gateways: chains by SNI, their routes, and secrets that reach nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from services.pilot.credentials.credential import Credential
from services.pilot.envoy.gateway import refused
from services.pilot.envoy.scope import Resources
from services.pilot.model.proxy import Proxy
from tests.unit.pilot.mesh import (
    OPTIONS,
    generate,
    host,
    listener,
    make,
    manager,
    router,
    routes,
    service_entry,
    sidecar,
    snap,
)
from tests.unit.rpc.pki import Authority
from windward.config.gateway import CIPHER_SUITES
from windward.identity.spiffe_id import SpiffeId, workload_id
from windward.xds import resource as xds

ONE = Authority().material("gateway")
HELD = Credential(ONE.chain_pem, ONE.key_pem, ONE.roots_pem)
SIMPLE = {"mode": "SIMPLE", "credentialName": "cert"}


def server(*hosts, number=443, name="https", protocol="HTTPS", **tls):
    port = {"number": number, "name": name, "protocol": protocol}
    return {"port": port, "hosts": list(hosts), "tls": tls or SIMPLE}


def gateway(*servers, name="edge", namespace="shop", born=0):
    spec = {"selector": {"istio": "ingress"}, "servers": list(servers)}
    return make("Gateway", name, spec, namespace=namespace, born=born)


def snapshot(*objects, held=(("shop", "cert"),)):
    return replace(snap(service_entry(), *objects), credentials=dict.fromkeys(held, HELD))


def made_of(*servers, proxy=None, **more) -> Resources:
    return generate(snapshot(gateway(*servers), **more), proxy or router())


def context(made: Resources, number: int = 0) -> tls_pb2.DownstreamTlsContext:
    unpacked = tls_pb2.DownstreamTlsContext()
    chain = listener(made, "0.0.0.0_443").filter_chains[number]
    assert chain.transport_socket.typed_config.Unpack(unpacked)
    return unpacked


def secrets(made: Resources) -> set[str]:
    return set(made.get(xds.SECRET, {}))


def pairs(found: tls_pb2.DownstreamTlsContext) -> list[tuple[str, str]]:
    """(name, where it comes from)."""
    return [
        (item.name, str(item.sds_config.WhichOneof("config_source_specifier")))
        for item in found.common_tls_context.tls_certificate_sds_secret_configs
    ]


def roots(found: tls_pb2.DownstreamTlsContext) -> tuple[str, str]:
    item = found.common_tls_context.combined_validation_context.validation_context_sds_secret_config
    return item.name, str(item.sds_config.WhichOneof("config_source_specifier"))


def test_each_server_has_a_chain_by_sni_and_routes_of_its_own():
    made = made_of(server("shop/a.com", "*/*.B.com"), server("*", name="any"))
    found = listener(made, "0.0.0.0_443")
    assert [list(item.filter_chain_match.server_names) for item in found.filter_chains] == [
        ["*.b.com", "a.com"],
        [],
    ]
    wanted = ["https.443.https.edge.shop", "https.443.any.edge.shop"]
    assert [manager(item).rds.route_config_name for item in found.filter_chains] == wanted
    assert set(wanted) <= set(made[xds.ROUTE])
    assert manager(found.filter_chains[0]).use_remote_address.value
    assert [item.name for item in found.listener_filters] == [
        "envoy.filters.listener.tls_inspector"
    ]
    assert pairs(context(made)) == [("kubernetes://cert", "ads")]
    assert list(context(made).common_tls_context.alpn_protocols) == ["h2", "http/1.1"]
    assert not context(made).HasField("require_client_certificate")
    assert secrets(made) == {"kubernetes://cert"}


def test_routes_are_those_of_the_servers_hosts():
    rules = [
        make(
            "VirtualService",
            name,
            {
                "hosts": [f"{name}.com"],
                "gateways": ["edge"],
                "http": [{"route": [{"destination": {"host": "reviews"}}]}],
            },
        )
        for name in ("a", "b")
    ]
    made = generate(snapshot(gateway(server("a.com"), server("b.com", name="b")), *rules), router())
    found = [item.name for item in routes(made, "https.443.b.edge.shop").virtual_hosts]
    assert found == ["b.com:443"]


def test_a_host_belongs_to_the_first_gateway_that_names_it():
    older = gateway(server("a.com", "b.com"), name="z", born=0)
    newer = gateway(server("B.com", "c.com"), server("a.com", name="again"), name="a", born=1)
    found = listener(generate(snapshot(newer, older), router()), "0.0.0.0_443").filter_chains
    assert [list(item.filter_chain_match.server_names) for item in found] == [
        ["a.com", "b.com"],
        ["c.com"],
    ]


def test_the_first_server_says_whether_a_port_is_secure():
    plain = server("p.com", protocol="HTTP", name="p", httpsRedirect=True)
    secure = made_of(server("a.com"), plain)
    assert "http.443" not in secure[xds.ROUTE]
    assert len(listener(secure, "0.0.0.0_443").filter_chains) == 1
    mixed = made_of(plain, server("a.com"))
    assert "http.443" in mixed[xds.ROUTE]
    assert not secrets(mixed)


@pytest.mark.parametrize(
    ("tls", "pair", "root", "required", "sent"),
    [
        (SIMPLE, ("kubernetes://cert", "ads"), ("", "None"), None, {"kubernetes://cert"}),
        (
            {**SIMPLE, "mode": "MUTUAL"},
            ("kubernetes://cert", "ads"),
            ("kubernetes://cert-cacert", "ads"),
            True,
            {"kubernetes://cert", "kubernetes://cert-cacert"},
        ),
        (
            {**SIMPLE, "mode": "OPTIONAL_MUTUAL"},
            ("kubernetes://cert", "ads"),
            ("kubernetes://cert-cacert", "ads"),
            False,
            {"kubernetes://cert", "kubernetes://cert-cacert"},
        ),
        (
            {"mode": "ISTIO_MUTUAL"},
            ("default", "api_config_source"),
            ("ROOTCA", "api_config_source"),
            True,
            set(),
        ),
        (
            {
                "mode": "MUTUAL",
                "serverCertificate": "/a",
                "privateKey": "/b",
                "caCertificates": "/c",
            },
            ("file-cert:/a~/b", "api_config_source"),
            ("file-root:/c", "api_config_source"),
            True,
            set(),
        ),
    ],
    ids=["simple", "mutual", "optional", "istio", "files"],
)
def test_where_certificates_and_roots_come_from(tls, pair, root, required, sent):
    made = made_of(server("a.com", **tls))
    found = context(made)
    assert pairs(found) == [pair]
    assert roots(found) == root
    has = found.HasField("require_client_certificate")
    assert (found.require_client_certificate.value if has else None) is required
    assert secrets(made) == sent


def test_several_certificates_and_roots_of_another_credential():
    tls = {"mode": "MUTUAL", "credentialNames": ["cert", "two"], "caCertCredentialName": "ca"}
    held = [("shop", "cert"), ("shop", "two"), ("shop", "ca")]
    made = made_of(server("a.com", **tls), held=held)
    assert [name for name, _ in pairs(context(made))] == ["kubernetes://cert", "kubernetes://two"]
    assert roots(context(made))[0] == "kubernetes://ca-cacert"
    files = [{"serverCertificate": f"/{n}.crt", "privateKey": f"/{n}.key"} for n in "ab"]
    by_files = made_of(server("a.com", mode="SIMPLE", tlsCertificates=files))
    assert [name for name, _ in pairs(context(by_files))] == [
        "file-cert:/a.crt~/a.key",
        "file-cert:/b.crt~/b.key",
    ]


def test_roots_may_stand_beside_the_pair():
    pair, beside = Credential(ONE.chain_pem, ONE.key_pem), Credential(roots_pem=ONE.roots_pem)
    held = {("shop", "cert"): pair, ("shop", "cert-cacert"): beside}
    objects = snap(gateway(server("a.com", mode="MUTUAL", credentialName="cert")))
    assert not generate(replace(objects, credentials={("shop", "cert"): pair}), router()).get(
        xds.SECRET
    )
    made = generate(replace(objects, credentials=held), router())
    assert secrets(made) == {"kubernetes://cert", "kubernetes://cert-cacert"}


def test_clients_may_be_narrowed_down():
    tls = {**SIMPLE, "mode": "MUTUAL", "subjectAltNames": ["x"], "verifyCertificateHash": ["00"]}
    found = context(made_of(server("a.com", **tls)))
    combined = found.common_tls_context.combined_validation_context
    validation = combined.default_validation_context
    matchers = validation.match_typed_subject_alt_names
    assert {item.matcher.exact for item in matchers} == {"x"}
    assert common_pb2.SubjectAltNameMatcher.DNS in {item.san_type for item in matchers}
    assert list(validation.verify_certificate_hash) == ["00"]
    mesh = context(made_of(server("a.com", mode="ISTIO_MUTUAL"))).common_tls_context
    [peer] = (
        mesh.combined_validation_context.default_validation_context.match_typed_subject_alt_names
    )
    assert peer.matcher.prefix == "spiffe://cluster.local/"


def test_versions_and_suites_are_as_asked():
    suites = ["ECDHE-RSA-AES128-GCM-SHA256", "made-up"]
    tls = {**SIMPLE, "minProtocolVersion": "TLSV1_1", "maxProtocolVersion": "TLSV1_2"}
    found = context(made_of(server("a.com", **tls, cipherSuites=suites)))
    params = found.common_tls_context.tls_params
    assert params.tls_minimum_protocol_version == common_pb2.TlsParameters.TLSv1_1
    assert params.tls_maximum_protocol_version == common_pb2.TlsParameters.TLSv1_2
    assert set(params.cipher_suites) == set(suites) & CIPHER_SUITES
    usual = context(made_of(server("a.com"))).common_tls_context.tls_params
    assert usual.tls_minimum_protocol_version == common_pb2.TlsParameters.TLSv1_2


def test_a_server_without_its_credential_holds_up_no_other():
    made = made_of(server("a.com"), server("b.com", name="b", mode="SIMPLE", credentialName="none"))
    [chain] = listener(made, "0.0.0.0_443").filter_chains
    assert list(chain.filter_chain_match.server_names) == ["a.com"]
    assert "0.0.0.0_443" not in made_of(server("a.com"), held=[])[xds.LISTENER]


ME = router()


def claiming(account: str) -> Proxy:
    """A workload's proxy with all that it may say of itself as the gateway says it."""
    return replace(
        ME, service_account=account, identity=workload_id("cluster.local", "shop", account)
    )


STRANGERS = {
    "a sidecar": replace(sidecar(), labels=ME.labels, identity=ME.identity),
    "another namespace's gateway": router(namespace="evil"),
    "unproved": replace(ME, identity=None),
    "proved in another namespace": replace(ME, identity=workload_id("cluster.local", "evil", "x")),
    "another trust domain's": replace(ME, identity=workload_id("evil.example", "shop", "gateway")),
    "not selected": replace(ME, labels=()),
    "another account that says it is a gateway": claiming("reviews"),
    "an account that is called alike": claiming("gateway2"),
    "an account that is written otherwise": claiming("Gateway"),
    "an account of that name elsewhere that says this namespace": replace(
        ME, identity=workload_id("cluster.local", "evil", "gateway")
    ),
    "a namespace that ends like the account": replace(
        router(namespace="shop-gateway"), service_account="gateway"
    ),
    "the control plane's shape of identity": replace(
        ME, identity=SpiffeId.parse("spiffe://cluster.local/shop/gateway")
    ),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_secrets_are_of_the_gateways_of_their_namespace_only(who):
    assert secrets(made_of(server("a.com"), proxy=ME)) == {"kubernetes://cert"}
    made = made_of(server("a.com"), proxy=STRANGERS[who])
    assert not secrets(made)
    everything = b"".join(item.body for named in made.values() for item in named.values())
    assert ONE.key_pem not in everything


def test_what_is_refused_is_named_and_only_what_would_have_been_sent():
    servers = (
        server("a.com"),
        server("b.com", name="b", mode="SIMPLE", credentialName="none"),
        server("c.com", name="c", mode="MUTUAL", credentialName="cert", caCertCredentialName="cas"),
    )
    found = snapshot(gateway(*servers), held=[("shop", "cert"), ("shop", "cas"), ("evil", "none")])
    claimed = {"cert": "shop/edge", "cas": "shop/edge"}
    assert refused(found, claiming("reviews"), OPTIONS) == claimed
    assert refused(found, ME, OPTIONS) == {}
    assert refused(found, replace(claiming("reviews"), labels=()), OPTIONS) == {}
    assert refused(found, router(namespace="evil"), OPTIONS) == {"none": "shop/edge"}
    assert refused(found, ME, replace(OPTIONS, gateway_accounts=frozenset())) == claimed


def test_a_gateway_of_another_namespace_uses_the_credential_of_the_workloads():
    """Where the Gateway object is does not matter: it could be anybody's."""
    theirs = gateway(server("a.com"), namespace="evil")
    only_theirs = snapshot(theirs, held=[("evil", "cert")])
    assert not secrets(generate(only_theirs, router()))
    assert secrets(generate(snapshot(theirs), router())) == {"kubernetes://cert"}


def test_plain_hosts_are_redirected_with_and_without_routes():
    rule = make(
        "VirtualService",
        "a",
        {
            "hosts": ["x.a.com", "other.com"],
            "gateways": ["edge"],
            "http": [{"route": [{"destination": {"host": "reviews"}}]}],
        },
    )
    plain = {"number": 80, "protocol": "HTTP"}
    servers = [
        {
            "port": {**plain, "name": "redirects"},
            "hosts": ["shop/*.a.com"],
            "tls": {"httpsRedirect": True},
        },
        {"port": {**plain, "name": "serves"}, "hosts": ["other.com"]},
    ]
    made = generate(snap(service_entry(), gateway(*servers), rule), router())
    all_, none = 2, 0
    assert host(made, "http.80", "*.a.com:80").require_tls == all_
    assert host(made, "http.80", "x.a.com:80").require_tls == all_
    assert host(made, "http.80", "other.com:80").require_tls == none
