import random

import pytest
from dnslib import EDNS0, QTYPE, RR, A, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import example, given
from hypothesis import strategies as st

from services.agent.dns import message
from services.agent.dns.message import Unusable
from tests.unit.agent.dns.resolver import question


def in_order(_: list[bytes]) -> None:
    return


def tails(*addresses: str) -> list[bytes]:
    import ipaddress

    return [message.address_tail(ipaddress.ip_address(item).packed) for item in addresses]


def answered(data: bytes, records: list[bytes], *, limit=0, shuffle=in_order, canonical=b""):
    query = message.parse(data)
    made = message.answer(
        query, records, limit=limit or query.limit, shuffle=shuffle, canonical=canonical
    )
    return DNSRecord.parse(made)


def outcome(data: bytes) -> message.Query | bytes | None:
    """The query, or what to say to bytes that are none."""
    try:
        return message.parse(data)
    except Unusable as problem:
        return problem.response


def test_a_query_is_read_in_lower_case_and_echoed_as_it_was_sent():
    query = message.parse(question("ReViews.Shop", "AAAA"))
    assert query.name == message.wire_name("reviews.shop")
    assert (query.type, query.in_class, query.edns, query.limit) == (28, True, False, 512)
    assert b"ReViews" in query.question
    reply = DNSRecord.parse(message.failure(query, message.NOERROR))
    assert str(reply.q.qname) == "ReViews.Shop."


def test_an_answer_is_what_a_client_understands():
    reply = answered(question("a.b"), tails("10.0.0.1", "10.0.0.2"))
    assert (reply.header.id, reply.header.qr, reply.header.aa, reply.header.ra) == (4711, 1, 1, 1)
    assert [(str(rr.rname), rr.ttl, str(rr.rdata)) for rr in reply.rr] == [
        ("a.b.", 30, "10.0.0.1"),
        ("a.b.", 30, "10.0.0.2"),
    ]


def test_an_alias_is_answered_by_a_cname_and_the_addresses_of_what_it_stands_for():
    reply = answered(
        question("a.b.search.local", "AAAA"), tails("fd00::1"), canonical=message.wire_name("a.b")
    )
    assert [(str(rr.rname), QTYPE[rr.rtype], str(rr.rdata)) for rr in reply.rr] == [
        ("a.b.search.local.", "CNAME", "a.b."),
        ("a.b.", "AAAA", "fd00::1"),
    ]


def test_addresses_are_mixed_by_the_shuffle_that_is_given():
    reply = answered(question("a.b"), tails("10.0.0.1", "10.0.0.2"), shuffle=list.reverse)
    assert [str(rr.rdata) for rr in reply.rr] == ["10.0.0.2", "10.0.0.1"]


def test_what_does_not_fit_is_cut_after_a_whole_record_and_tc_says_so():
    many = tails(*(f"10.0.{number // 250}.{number % 250}" for number in range(400)))
    data = question("a.b")
    reply = answered(data, many)
    query = message.parse(data)
    size = len(message.answer(query, many, limit=512, shuffle=in_order))
    assert reply.header.tc == 1
    assert 512 - 16 < size <= 512
    assert len(reply.rr) == (512 - 12 - 9) // 16
    whole = answered(data, many, limit=message.MOST_BYTES)
    assert (whole.header.tc, len(whole.rr)) == (0, 400)


def test_edns_tells_how_large_an_answer_may_be():
    record = DNSRecord(DNSHeader(id=1), q=DNSQuestion("a.b"), ar=[EDNS0(udp_len=1232)])
    reply = answered(record.pack(), tails(*(f"10.0.0.{number}" for number in range(60))))
    assert (reply.header.tc, len(reply.rr), reply.ar[0].rtype) == (0, 60, QTYPE.OPT)


@pytest.mark.parametrize(("asked", "granted"), [(0, 512), (511, 512), (9000, 4096)])
def test_a_size_out_of_reason_is_bounded(asked, granted):
    record = DNSRecord(DNSHeader(id=1), q=DNSQuestion("a.b"), ar=[EDNS0(udp_len=asked)])
    assert message.parse(record.pack()).limit == granted


def test_an_edns_version_of_the_future_is_badvers():
    record = DNSRecord(DNSHeader(id=1), q=DNSQuestion("a.b"), ar=[EDNS0(version=1)])
    with pytest.raises(Unusable) as raised:
        message.parse(record.pack())
    reply = DNSRecord.parse(raised.value.response)
    assert (reply.ar[0].ttl >> 24 << 4) + reply.header.rcode == 16


def broken(change):
    data = bytearray(question("reviews.shop"))
    change(data)
    return bytes(data)


def set_byte(at: int, value: int):
    return lambda data: data.__setitem__(at, value)


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (question("a.b")[:11], None),
        (broken(set_byte(2, 0x80)), None),  # a response: answering it could go on for ever
        (broken(set_byte(2, 0x28)), message.NOTIMP),  # UPDATE
        (broken(set_byte(5, 2)), message.FORMERR),  # two questions
        (broken(set_byte(5, 0)), message.FORMERR),
        (broken(set_byte(12, 0xC0)), message.FORMERR),  # a pointer in a question
        (broken(set_byte(12, 63)), message.FORMERR),  # a label beyond the end
        (broken(set_byte(12, 64)), message.FORMERR),  # a reserved kind of label
        (broken(lambda data: data.append(0)), message.FORMERR),  # bytes that nothing announced
        (broken(set_byte(11, 1)), message.FORMERR),  # a record announced and not there
        (broken(set_byte(10, 255)), message.FORMERR),
        (question("a.b")[:-1], message.FORMERR),
    ],
)
def test_what_is_no_question_is_refused_or_dropped(data, rcode):
    with pytest.raises(Unusable) as raised:
        message.parse(data)
    response = raised.value.response
    assert (response is None) == (rcode is None)
    if response is not None:
        assert response[:2] == data[:2]
        assert message.rcode_of(response) == rcode


def test_two_opt_records_are_a_format_error():
    option = EDNS0(udp_len=1232)
    record = DNSRecord(DNSHeader(id=1), q=DNSQuestion("a.b"), ar=[option, option])
    with pytest.raises(Unusable):
        message.parse(record.pack())


@given(st.binary(max_size=600))
@example(question("a.b") + b"\0")
def test_any_bytes_are_a_query_or_unusable(data):
    read = outcome(data)
    if isinstance(read, message.Query):
        assert len(read.name) <= message.LONGEST_NAME_BYTES
        assert data[12:].startswith(read.question)
    else:
        assert read is None or read[:2] == data[:2]


@given(st.binary(max_size=40), st.integers(0, 60))
def test_a_query_with_damage_anywhere_never_breaks_the_parser(damage, at):
    record = DNSRecord(DNSHeader(id=1), q=DNSQuestion("reviews.shop"), ar=[EDNS0(udp_len=1232)])
    data = record.pack()
    read = outcome(data[:at] + damage + data[at + len(damage) :])
    assert not isinstance(read, bytes) or message.rcode_of(read) in {0, 1, 4}


LABELS = st.lists(st.from_regex(r"[a-z0-9_-]{1,20}", fullmatch=True), min_size=1, max_size=8)


@given(LABELS)
def test_names_are_written_as_dnslib_writes_them(labels):
    name = ".".join(labels)
    assert message.wire_name(name) == message.parse(question(name)).name


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64, ".".join(["abcdefgh"] * 32), "bücher.de"])
def test_a_host_that_dns_cannot_carry_is_refused(host):
    with pytest.raises(ValueError, match=r".+"):
        message.wire_name(host)


def test_only_the_response_to_this_question_under_this_id_is_one():
    asked = question("a.b", id_=7)
    query = message.parse(asked)
    reply = DNSRecord.parse(asked).reply()
    reply.add_answer(RR("a.b", rdata=A("10.0.0.1")))
    right = reply.pack()
    assert message.answers_question(right, query.id, query.question)
    assert message.answers_question(right.replace(b"\1a", b"\1A", 1), query.id, query.question)
    assert not message.answers_question(right, b"\0\x08", query.question)
    assert not message.answers_question(asked, query.id, query.question)
    other = DNSRecord.parse(question("a.c", id_=7)).reply().pack()
    assert not message.answers_question(other, query.id, query.question)
    assert not message.answers_question(right[:14], query.id, query.question)


def test_nxdomain_becomes_no_data():
    reply = DNSRecord.parse(question("a.b")).reply()
    reply.header.rcode = message.NXDOMAIN
    assert DNSRecord.parse(message.without_nxdomain(reply.pack())).header.rcode == 0
    reply.header.rcode = message.SERVFAIL
    assert message.without_nxdomain(reply.pack()) == reply.pack()


@given(st.integers(2, 30), st.randoms(use_true_random=False))
def test_every_address_may_come_first_and_none_is_lost(count, rng: random.Random):
    texts = [f"10.0.0.{number}" for number in range(count)]
    reply = answered(question("a.b"), tails(*texts), shuffle=rng.shuffle, limit=4096)
    assert sorted(str(rr.rdata) for rr in reply.rr) == sorted(texts)
