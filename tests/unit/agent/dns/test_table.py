import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.dns import message
from services.agent.dns.table import NameTable
from windward.api.istio.networking.nds.v1 import nds_pb2

DOMAIN = "cluster.local"


def table(**options) -> NameTable:
    return NameTable(**({"namespace": "shop", "domain": DOMAIN, "search": ()} | options))


def info(*ips, kubernetes="", alt=()):
    short, _, namespace = kubernetes.partition(".")
    return nds_pb2.NameTable.NameInfo(
        ips=ips, registry="Mesh", shortname=short, namespace=namespace, alt_hosts=alt
    )


def of(**hosts) -> bytes:
    data: bytes = nds_pb2.NameTable(table=hosts).SerializeToString()
    return data


def one(host, *ips, **options) -> dict[str, bytes]:
    return {host: of(**{host: info(*ips, **options)})}


def service(short, namespace, *ips) -> dict[str, bytes]:
    return one(f"{short}.{namespace}.svc.{DOMAIN}", *ips, kubernetes=f"{short}.{namespace}")


def found(names: NameTable, name: str):
    return names.lookup(message.wire_name(name))


def host_of(names: NameTable, name: str) -> str | None:
    result = found(names, name)
    return result.entry.host if result else None


def canonical(names: NameTable, name: str):
    result = found(names, name)
    assert result is not None
    return result.canonical


def test_a_host_has_its_addresses_by_family():
    names = table()
    assert names.apply(one("db.example.com", "10.0.0.1", "fd00::1", "10.0.0.2"), ()) == ()
    entry = found(names, "db.example.com").entry
    assert entry.tails(message.A) == tuple(
        message.address_tail(bytes(packed)) for packed in [(10, 0, 0, 1), (10, 0, 0, 2)]
    )
    assert len(entry.tails(message.AAAA)) == 1
    assert len(entry.tails(message.ANY)) == 3
    assert entry.tails(15) is None


@pytest.mark.parametrize(
    ("families", "ips", "left"),
    [
        ({4}, ("10.0.0.1", "fd00::1"), (1, 0)),
        ({6}, ("10.0.0.1", "fd00::1"), (0, 1)),
        ({4, 6}, ("10.0.0.1", "fd00::1"), (1, 1)),
        ({4}, ("fd00::1",), (0, 1)),
        ({6}, ("10.0.0.1",), (1, 0)),
    ],
)
def test_addresses_of_a_family_that_the_workload_has_not_are_left_out(families, ips, left):
    names = table(families=families)
    names.apply(one("a.example.com", *ips), ())
    entry = found(names, "a.example.com").entry
    assert (len(entry.v4), len(entry.v6)) == left


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("reviews", True),
        ("reviews.shop", True),
        ("reviews.shop.svc", True),
        ("reviews.shop.svc.cluster.local", True),
        ("ratings", False),  # another namespace's short name
        ("ratings.other", True),
        ("ratings.other.svc", True),
        ("reviews.other", False),
        ("reviews.shop.svc.cluster", False),
        ("reviews.shop.abc", False),
        ("xreviews", False),
        ("shop", False),
    ],
)
def test_short_forms_of_a_kubernetes_host(name, known):
    names = table()
    names.apply(
        service("reviews", "shop", "10.0.0.1") | service("ratings", "other", "10.0.0.2"), ()
    )
    assert (found(names, name) is not None) == known
    if known:
        assert canonical(names, name) == b""


def test_a_host_of_another_form_has_no_short_forms():
    names = table()
    names.apply(one("reviews.shop.svc.cluster.local", "10.0.0.1"), ())
    assert found(names, "reviews.shop") is None
    assert found(names, "reviews.shop.svc.cluster.local") is not None


def test_a_search_domain_is_answered_by_the_name_without_it():
    names = table(search=("shop.svc.cluster.local", "svc.cluster.local", "example.org"))
    names.apply(one("api.example.com", "10.0.0.1") | service("reviews", "shop", "10.0.0.2"), ())
    for domain in ("shop.svc.cluster.local", "svc.cluster.local", "example.org"):
        assert canonical(names, f"api.example.com.{domain}") == message.wire_name("api.example.com")
    # What the search makes of a short name is a host of its own, not an alias.
    assert canonical(names, "reviews.shop.svc.cluster.local") == b""
    assert canonical(names, "reviews.shop.example.org") == message.wire_name("reviews.shop")
    assert found(names, "example.org") is None
    assert found(names, "api.example.com.example.net") is None
    assert found(names, "api.example.comexample.org") is None


def test_a_search_domain_ends_at_a_label():
    names = table(search=("org",))
    names.apply(one("a", "10.0.0.1"), ())
    assert found(names, "a.org") is not None
    assert found(names, "a.xorg") is None


def test_wildcards_cover_names_below_the_most_specific_first():
    names = table(search=("search.local",))
    names.apply(
        one("*.foo.com", "10.0.0.1")
        | one("*.bar.foo.com", "10.0.0.2")
        | one("x.foo.com", "10.0.0.3"),
        (),
    )
    assert host_of(names, "a.foo.com") == "*.foo.com"
    assert host_of(names, "b.a.foo.com") == "*.foo.com"
    assert host_of(names, "a.bar.foo.com") == "*.bar.foo.com"
    assert host_of(names, "x.foo.com") == "x.foo.com"
    assert host_of(names, "foo.com") is None
    assert canonical(names, "a.foo.com.search.local") == message.wire_name("a.foo.com")
    names.apply({}, ["*.foo.com", "*.bar.foo.com"])
    assert host_of(names, "a.bar.foo.com") is None


def test_the_host_of_a_name_goes_before_an_alias_whatever_came_first():
    names = table()
    alias = one("z.example.com", "10.0.0.1", alt=("a.example.com", "b.example.com"))
    own = one("a.example.com", "10.0.0.2")
    for order in ((alias, own), (own, alias)):
        for resource in order:
            names.apply(resource, ())
        assert host_of(names, "a.example.com") == "a.example.com"
        assert host_of(names, "b.example.com") == "z.example.com"
        names.apply({}, ["a.example.com"])
        assert host_of(names, "a.example.com") == "z.example.com"
        names.apply({}, ["z.example.com"])
        assert len(names) == 0


def test_a_resource_that_cannot_be_used_leaves_its_last_good_state_and_hurts_no_other():
    names = table()
    names.apply(one("a.example.com", "10.0.0.1"), ())
    problems = names.apply(
        one("b.example.com", "10.0.0.2")
        | {"a.example.com": of(**{"a.example.com": info("10.0.0.256")})}
        | {"c": b"\xff", "d": of(**{"d..e": info("10.0.0.4")})},
        (),
    )
    assert [problem.split(":")[0] for problem in problems] == ["a.example.com", "c", "d"]
    assert "'10.0.0.256' is not an IP address" in problems[0]
    assert host_of(names, "a.example.com") == "a.example.com"
    assert host_of(names, "b.example.com") == "b.example.com"


def test_one_resource_may_hold_many_hosts():
    names = table()
    names.apply({"all": of(**{f"h{number}.com": info("10.0.0.1") for number in range(5)})}, ())
    assert len(names) == 5
    names.apply({"all": of(**{"h1.com": info("10.0.0.9")})}, ())
    assert [name for name, _ in names] == ["h1.com"]


def test_before_any_table_names_like_the_meshs_may_still_come():
    names = table()
    for name, may in [
        ("reviews", True),
        ("reviews.shop.svc", True),
        ("reviews.shop.svc.cluster.local", True),
        ("reviews.shop", False),
        ("www.example.com", False),
    ]:
        assert names.may_come(message.wire_name(name)) == may
    names.apply({}, ())
    assert not names.may_come(message.wire_name("reviews"))


def test_ten_thousand_names():
    names = table()
    names.apply(
        {
            host: data
            for number in range(10_000)
            for host, data in service(
                f"s{number}", "shop", f"10.1.{number // 256}.{number % 256}"
            ).items()
        },
        (),
    )
    assert len(names) == 10_000
    assert found(names, "s9999").entry.v4 == (message.address_tail(bytes((10, 1, 39, 15))),)
    assert host_of(names, "s123.shop") == "s123.shop.svc.cluster.local"
    assert found(names, "s10000") is None


HOSTS = st.sampled_from(
    ["a.com", "b.a.com", "c.b.a.com", "*.a.com", "*.b.a.com", "*.com", "a.com.s.org", "com"]
)
ALIASES = st.lists(HOSTS, max_size=2)
STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("xyz"), st.dictionaries(HOSTS, ALIASES, max_size=3)),
        st.lists(st.sampled_from("xyz"), max_size=2),
    ),
    max_size=6,
)
QUESTIONS = ["a.com", "x.a.com", "b.a.com", "x.b.a.com", "c.b.a.com", "a.com.s.org", "z.a.com.s.org", "q"]  # fmt: skip


class Model:
    """The same table, without an index: every claim is looked at for every question."""

    def __init__(self):
        self.resources = {}

    def owner(self, name):
        claims = [
            (alias, resource, host)
            for resource, hosts in self.resources.items()
            for host, aliases in hosts.items()
            for claimed, alias in [(host, False), *((other, True) for other in aliases)]
            if claimed == name
        ]
        return min(claims)[2] if claims else None

    def wildcard(self, name):
        labels = name.split(".")
        owners = [self.owner(".".join(["*", *labels[at:]])) for at in range(1, len(labels))]
        return next(filter(None, owners), None)

    def host(self, name):
        base = name.removesuffix(".s.org") if name.endswith(".s.org") else None
        found = self.owner(name) or (base and self.owner(base))
        return found or self.wildcard(name) or (base and self.wildcard(base)) or None


@given(STEPS)
def test_any_history_of_changes_gives_what_its_last_state_says(steps):
    names, model = table(search=("s.org",)), Model()
    for upserts, removed in steps:
        encoded = {
            resource: of(**{host: info("10.0.0.1", alt=alt) for host, alt in hosts.items()})
            for resource, hosts in upserts.items()
        }
        assert names.apply(encoded, removed) == ()
        for resource in removed:
            model.resources.pop(resource, None)
        model.resources.update(upserts)
        for name in QUESTIONS:
            assert host_of(names, name) == model.host(name), name
    names.apply({}, "xyz")
    assert len(names) == 0
    assert found(names, "x.a.com") is None
