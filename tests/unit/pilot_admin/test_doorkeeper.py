"""Who is let in: by certificate from anywhere, by token or by the development setting from loopback."""

from __future__ import annotations

import stat

import pytest

from services.pilot.admin.doorkeeper import Doorkeeper, token_of
from services.pilot.api.access import Access
from tests.unit.pilot_api.callers import ADMINISTRATOR, MIXER, TRUST_DOMAIN, WORKLOAD
from windward.identity.spiffe_id import SpiffeId
from windward.process import FatalError
from windward.rpc.http import Request

TOKEN = "t" * 43


def refused(
    who: str = "",
    peer: str = "127.0.0.1",
    *,
    token: str = TOKEN,
    opened: bool = False,
    **headers: str,
) -> int:
    """The status; 0 for a caller that is let in."""
    keeper = Doorkeeper(Access(TRUST_DOMAIN), token, opened)
    identity = SpiffeId.parse(who) if who else None
    answer = keeper.refuses(Request("GET", "/debug/", {}, peer, headers, identity=identity))
    return answer.status if answer is not None else 0


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.9", "2001:db8::1"])
def test_a_certificate_decides_wherever_it_comes_from(peer):
    assert refused(ADMINISTRATOR, peer) == refused(MIXER, peer) == 0
    assert refused(WORKLOAD, peer) == 403
    assert refused(WORKLOAD, peer, opened=True, host="localhost") == 403
    assert refused(WORKLOAD, peer, authorization=f"Bearer {TOKEN}") == 403


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_a_token_lets_in_from_loopback(peer):
    assert refused(peer=peer, authorization=f"Bearer {TOKEN}") == 0
    assert refused(peer=peer, authorization=f"bearer {TOKEN}") == 0


@pytest.mark.parametrize("peer", ["10.0.0.9", "::ffff:10.0.0.9", "", "localhost"])
def test_nothing_but_a_certificate_lets_in_from_elsewhere(peer):
    assert refused(peer=peer, authorization=f"Bearer {TOKEN}") == 401
    assert refused(peer=peer, opened=True, host="localhost") == 401


@pytest.mark.parametrize(
    "given", ["", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"]
)
def test_another_token_does_not(given):
    assert refused(authorization=given) == 401


def test_without_a_token_an_empty_one_is_none():
    assert refused(token="", authorization="Bearer ") == refused(token="") == 401


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:15014", "127.0.0.1:1", "[::1]:1", "[::1]", "LOCALHOST"]
)
def test_open_on_loopback_is_open_to_whoever_names_loopback(host):
    assert refused(opened=True, host=host) == 0


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:15014", "127.0.0.1.evil.example", "x:localhost"]
)
def test_a_page_that_made_its_own_name_stand_for_loopback_is_kept_out(host):
    assert refused(opened=True, host=host) == 403


def test_a_token_is_made_once_and_is_its_owners_alone(tmp_path):
    path = tmp_path / "token"
    made = token_of(str(path))
    assert len(made) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token_of(str(path)) == made
    assert token_of("") == ""


@pytest.mark.parametrize(
    ("text", "mode"),
    [("short", 0o600), ("", 0o600), ("x" * 40, 0o640), ("two words" * 9, 0o600), ("ü" * 40, 0o644)],
)
def test_a_file_that_is_no_secret_stops_pilot(tmp_path, text, mode):
    path = tmp_path / "token"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(FatalError, match="--admin-token-file"):
        token_of(str(path))


def test_a_folder_that_is_not_there_stops_pilot(tmp_path):
    with pytest.raises(FatalError, match="No such file"):
        token_of(str(tmp_path / "none" / "token"))
