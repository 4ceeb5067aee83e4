from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mixer.adapters.checks import (
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    PERMISSION_DENIED,
    Verdict,
    denier,
    list_checker,
)
from windward.config.mixer_rule import DenierParams, ListEntryType, ListParams, Status

PASS = Verdict()


def a_list(*entries: str, kind: ListEntryType = ListEntryType.STRINGS, blacklist: bool = False):
    return list_checker(ListParams(overrides=entries, entry_type=kind, blacklist=blacklist))


def test_an_empty_verdict_passes():
    assert PASS.code == 0


def test_a_denier_without_a_status_says_failed_precondition():
    verdict = denier(DenierParams())(None)
    assert verdict.code == FAILED_PRECONDITION
    assert verdict.message


@pytest.mark.parametrize("code", range(1, 17))
def test_a_denier_says_its_own_code_and_words(code):
    check = denier(DenierParams(status=Status(code=code, message="ask the harbour master")))
    assert check(None) == check("any") == Verdict(code, "ask the harbour master")


def test_a_denier_without_words_has_some():
    verdict = denier(DenierParams(status=Status(code=7)))(None)
    assert verdict.code == PERMISSION_DENIED
    assert verdict.message


@pytest.mark.parametrize(
    ("kind", "entries", "inside", "outside"),
    [
        (ListEntryType.STRINGS, ("v1", "v2"), ["v1", "v2"], ["v3", "V1", "v", "v1 ", ""]),
        (ListEntryType.STRINGS, ("",), [""], ["a"]),
        (ListEntryType.CASE_INSENSITIVE_STRINGS, ("Quay",), ["quay", "QUAY", "qUaY"], ["qua", ""]),
        (ListEntryType.IP_ADDRESSES, ("10.1.2.3",), ["10.1.2.3"], ["10.1.2.4", "::1"]),
        (ListEntryType.IP_ADDRESSES, ("10.1.2.3/8",), ["10.0.0.0", "10.9.9.9"], ["11.0.0.0"]),
        (
            ListEntryType.IP_ADDRESSES,
            ("2001:db8::/32", "10.0.0.1"),
            ["2001:db8::7", "10.0.0.1"],
            ["2001:db9::7", "10.0.0.2"],
        ),
        (ListEntryType.STRINGS, (), [], ["", "a"]),
    ],
)
def test_a_list_knows_what_is_on_it(kind, entries, inside, outside):
    white = a_list(*entries, kind=kind)
    black = a_list(*entries, kind=kind, blacklist=True)
    for value in inside:
        assert white(value) == PASS
        assert black(value) == Verdict(PERMISSION_DENIED, f"{value} is blacklisted")
    for value in outside:
        assert white(value) == Verdict(PERMISSION_DENIED, f"{value} is not whitelisted")
        assert black(value) == PASS


@pytest.mark.parametrize("blacklist", [False, True])
@pytest.mark.parametrize("value", ["", "quay", "10.0.0", "10.0.0.256", "10.0.0.1/8"])
def test_what_is_no_address_is_an_invalid_argument_on_either_kind_of_list(value, blacklist):
    check = a_list("10.0.0.0/8", kind=ListEntryType.IP_ADDRESSES, blacklist=blacklist)
    assert check(value).code == INVALID_ARGUMENT
    assert value in check(value).message


@given(st.lists(st.text(max_size=5), max_size=5), st.text(max_size=5))
def test_a_blacklist_is_a_whitelist_turned_round(entries, value):
    white, black = a_list(*entries), a_list(*entries, blacklist=True)
    assert (white(value).code == 0) is (value in entries)
    assert (black(value).code == 0) is (value not in entries)


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_a_network_holds_the_addresses_that_share_its_prefix(network, bits, address):
    check = a_list(f"{network}/{bits}", kind=ListEntryType.IP_ADDRESSES)
    shared = (int(network) ^ int(address)) >> (32 - bits) == 0
    assert (check(str(address)).code == 0) is shared


def test_a_denier_whose_status_is_ok_denies_all_the_same() -> None:
    assert denier(DenierParams(status=Status(code=0)))(None).code == 9


def test_an_ipv4_address_in_ipv6_spelling_meets_an_ipv4_list() -> None:
    params = ListParams(
        overrides=("10.0.0.0/8",), entry_type=ListEntryType.IP_ADDRESSES, blacklist=True
    )
    assert list_checker(params)("::ffff:10.1.2.3").code == 7
