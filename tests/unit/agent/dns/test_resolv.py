from services.agent.dns.resolv import ResolvConf, Resolvers, parse_resolv_conf


def test_servers_and_search_as_libc_reads_them():
    text = """
# made by hand
nameserver 10.0.0.53   ; the first
nameserver fe80::1%eth0
nameserver not-an-address
nameserver
nameserver 10.0.0.53
domain ignored.example
search shop.svc.cluster.local. svc.cluster.local
options ndots:5
"""
    assert parse_resolv_conf(text) == Resolvers(
        (("10.0.0.53", 53), ("fe80::1%eth0", 53)), ("shop.svc.cluster.local", "svc.cluster.local")
    )


def test_three_servers_at_most_and_the_last_search_line():
    text = "search a b\nsearch c .\n" + "".join(f"nameserver 10.0.0.{n}\n" for n in range(5))
    read = parse_resolv_conf(text)
    assert [address for address, _ in read.servers] == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]
    assert read.search == ("c",)


def test_a_changed_file_is_seen_after_a_while_and_a_lost_one_changes_nothing(tmp_path):
    path, now = tmp_path / "resolv.conf", [0.0]
    path.write_text("nameserver 10.0.0.1\n")
    conf = ResolvConf(path, lambda: now[0])
    path.write_text("nameserver 10.0.0.222\n")
    assert conf.current().servers == (("10.0.0.1", 53),)
    now[0] = 5.0
    assert conf.current().servers == (("10.0.0.222", 53),)
    path.unlink()
    now[0] = 10.0
    assert conf.current().servers == (("10.0.0.222", 53),)


def test_without_a_file_there_is_no_server(tmp_path):
    assert ResolvConf(tmp_path / "none", lambda: 0.0).current() == Resolvers()
