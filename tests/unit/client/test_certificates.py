"""The keeper: a certificate from disk or from Citadel, renewed in time, whatever is broken meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.citadel.authn import tokens
from services.citadel.authority.root import load_or_create
from services.citadel.authority.signing import Policy, issue
from tests.unit.citadel.running import Running, citadel
from windward.client import certificates
from windward.client.certificates import (
    CERTIFICATE_FILE,
    KEY_FILE,
    ROOTS_FILE,
    CertificateKeeper,
    Condition,
    Enrolment,
    RefusedByCitadel,
)
from windward.identity.certificate import check_svid, identity_of, load_chain
from windward.identity.csr import new_csr
from windward.identity.keys import key_pem, new_key
from windward.identity.spiffe_id import SpiffeId, workload_id
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.store.memory import MemoryStore

ALICE = workload_id("cluster.local", "shop", "alice")
BOB = workload_id("cluster.local", "shop", "bob")
WAIT_S = 30.0
FILES = {CERTIFICATE_FILE: "chain_pem", KEY_FILE: "key_pem", ROOTS_FILE: "roots_pem"}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempts of a back-off, again and again."""
    monkeypatch.setattr(certificates, "FIRST_BACKOFF_S", 0.02)
    monkeypatch.setattr(certificates, "LONGEST_BACKOFF_S", 0.05)


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    async with citadel(tmp_path, MemoryStore(), monkeypatch) as started:
        yield started


async def enrol(running: Running, identity: SpiffeId = ALICE, **more: int | str) -> Enrolment:
    token = await tokens.create(running.store, identity, 600, 1)
    enrolment = running.enrolment(identity, token.secret)
    return replace(enrolment, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def kept(keeper: CertificateKeeper) -> AsyncIterator[TlsSource]:
    """The keeper at work; it must still be at the end."""
    source = await keeper.first()
    work = asyncio.create_task(keeper.run())
    try:
        yield source
        assert not work.done()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def serial(material: TlsMaterial) -> int:
    return load_chain(material.chain_pem)[0].serial_number


def put(folder: Path, material: TlsMaterial) -> None:
    folder.mkdir(exist_ok=True)
    for name, part in FILES.items():
        (folder / name).write_bytes(getattr(material, part))


async def material_of(
    identity: SpiffeId = ALICE, ttl_s: int = 3600, made_at: datetime | None = None
) -> TlsMaterial:
    """What an earlier run may have left, of an authority of its own."""
    now = made_at or datetime.now(UTC)
    root = await load_or_create(MemoryStore(), b"k" * 32, "cluster.local", 10**7, lambda: now)
    key = new_key()
    issued = issue(
        root, Policy(3600, 10**6, strict=True), identity, new_csr(key, identity), ttl_s, now
    )
    return TlsMaterial(issued.chain[0].encode(), key_pem(key), root.pem)


async def test_the_first_certificate_holds_and_is_kept_for_its_owner_alone(running: Running):
    enrolment = await enrol(running)
    source = await CertificateKeeper(enrolment).first()
    now = datetime.now(UTC)
    material = source.current
    check_svid(material.chain_pem, material.key_pem, material.roots_pem, ALICE, now)
    assert material.roots_pem == running.roots_pem
    for name, part in FILES.items():
        file = enrolment.state_dir / name
        assert file.read_bytes() == getattr(material, part)
        assert file.stat().st_mode & 0o777 == 0o600
    assert enrolment.state_dir.stat().st_mode & 0o077 == 0
    assert {path.name for path in enrolment.state_dir.iterdir()} == set(FILES)


async def test_a_restart_needs_neither_token_nor_citadel(running: Running):
    enrolment = await enrol(running)
    source = await CertificateKeeper(enrolment).first()
    alone = replace(
        enrolment,
        tls_address="127.0.0.1:1",
        mtls_address="127.0.0.1:1",
        token_file=Path("/nowhere"),
        trust_bundle_file=Path("/nowhere"),
    )
    again = await CertificateKeeper(alone).first()
    assert again.current == source.current


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "no certificate": lambda folder: (folder / CERTIFICATE_FILE).unlink(),
    "no key": lambda folder: (folder / KEY_FILE).unlink(),
    "no roots": lambda folder: (folder / ROOTS_FILE).unlink(),
    "empty certificate": lambda folder: (folder / CERTIFICATE_FILE).write_bytes(b""),
    "empty key": lambda folder: (folder / KEY_FILE).write_bytes(b""),
    "empty roots": lambda folder: (folder / ROOTS_FILE).write_bytes(b""),
    "certificate cut": lambda folder: cut(folder / CERTIFICATE_FILE),
    "key cut": lambda folder: cut(folder / KEY_FILE),
    "roots cut": lambda folder: cut(folder / ROOTS_FILE),
    "bytes for a key": lambda folder: (folder / KEY_FILE).write_bytes(bytes(range(256))),
    "another key": lambda folder: (folder / KEY_FILE).write_bytes(key_pem(new_key())),
    "a folder for a key": lambda folder: as_folder(folder / KEY_FILE),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_what_is_broken_on_disk_is_got_anew_by_the_token(running: Running, damage: Damage):
    enrolment = await enrol(running)
    left = await material_of()
    put(enrolment.state_dir, left)
    damage(enrolment.state_dir)
    source = await CertificateKeeper(enrolment).first()
    assert source.current.roots_pem == running.roots_pem != left.roots_pem
    assert identity_of(load_chain(source.current.chain_pem)[0]) == ALICE


@pytest.mark.parametrize(
    ("identity", "age"),
    [(BOB, timedelta(0)), (ALICE, timedelta(hours=2)), (ALICE, timedelta(hours=-2))],
    ids=["of another", "expired", "not yet valid"],
)
async def test_a_whole_state_that_is_not_ours_now_is_got_anew(
    running: Running, identity: SpiffeId, age: timedelta
):
    enrolment = await enrol(running)
    put(enrolment.state_dir, await material_of(identity, made_at=datetime.now(UTC) - age))
    source = await CertificateKeeper(enrolment).first()
    assert source.current.roots_pem == running.roots_pem


async def test_a_state_folder_that_cannot_be_written_is_no_reason_to_have_none(running: Running):
    enrolment = await enrol(running)
    enrolment.state_dir.write_bytes(b"a file stands here")
    source = await CertificateKeeper(enrolment).first()
    assert identity_of(load_chain(source.current.chain_pem)[0]) == ALICE


async def test_what_cannot_be_kept_whole_leaves_what_was_kept(running: Running):
    enrolment = await enrol(running, ttl_s=3600)
    before = (await CertificateKeeper(enrolment).first()).current
    (enrolment.state_dir / (ROOTS_FILE + ".new")).mkdir()  # the last of the three cannot be written
    late = CertificateKeeper(enrolment, lambda: datetime.now(UTC) + timedelta(minutes=35))
    async with kept(late) as source, asyncio.timeout(WAIT_S):
        assert serial(await source.changed(source.sequence)) != serial(before)
    assert (await CertificateKeeper(enrolment).first()).current == before


async def test_a_refusal_says_which_file_and_what_to_do(running: Running):
    enrolment = running.enrolment(ALICE, "wwjt_" + "x" * 43)
    with pytest.raises(RefusedByCitadel, match="token create") as caught:
        await CertificateKeeper(enrolment).first()
    for said in (str(enrolment.token_file), str(ALICE), enrolment.tls_address):
        assert said in str(caught.value)
    assert enrolment.token_file.read_text() not in str(caught.value)


async def test_a_token_for_another_identity_is_of_no_use(running: Running, quick: None):
    """Citadel signs the token's identity; the keeper wants its own and keeps nothing of the answer."""
    token = await tokens.create(running.store, BOB, 600, 1)
    enrolment = running.enrolment(ALICE, token.secret)
    with pytest.raises(RefusedByCitadel):
        await CertificateKeeper(enrolment).first()
    assert not enrolment.state_dir.exists()


async def test_it_waits_for_a_citadel_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
):
    """First there is no trust bundle, no token and nobody at the address; then all of it."""
    store = MemoryStore()
    async with citadel(tmp_path, store, monkeypatch) as before:
        ports = before.ports
        enrolment = before.enrolment(ALICE, "")
    before.bootstrap.joinpath("root-cert.pem").unlink()
    enrolment.token_file.unlink()
    waiting = asyncio.create_task(CertificateKeeper(enrolment).first())
    await asyncio.sleep(0)
    assert not waiting.done()
    enrolment.token_file.write_text((await tokens.create(store, ALICE, 600, 1)).secret + "\n")
    addresses = {f"{name}_address": f"127.0.0.1:{ports[name]}" for name in ("tls", "mtls")}
    async with citadel(tmp_path, store, monkeypatch, **addresses), asyncio.timeout(WAIT_S):
        source = await waiting
    assert identity_of(load_chain(source.current.chain_pem)[0]) == ALICE


async def test_the_token_file_is_read_for_every_attempt(running: Running):
    enrolment = await enrol(running)
    await CertificateKeeper(enrolment).first()
    other = replace(enrolment, state_dir=running.base / "elsewhere")
    with pytest.raises(RefusedByCitadel):
        await CertificateKeeper(other).first()
    keeper = CertificateKeeper(other)
    other.token_file.write_text((await tokens.create(running.store, ALICE, 600, 1)).secret)
    source = await keeper.first()
    assert identity_of(load_chain(source.current.chain_pem)[0]) == ALICE


async def test_certificates_of_two_seconds_follow_one_another(running: Running, quick: None):
    """By the certificate in force, not by the token, which is used up; each with a key of its own."""
    enrolment = await enrol(running, ttl_s=2)
    async with kept(CertificateKeeper(enrolment)) as source, asyncio.timeout(WAIT_S):
        seen = [source.current]
        while len(seen) < 4:
            seen.append(await source.changed(source.sequence))
            now = datetime.now(UTC)
            previous = load_chain(seen[-2].chain_pem)[0]
            assert previous.not_valid_after_utc > now, "replaced while it still held"
            material = seen[-1]
            check_svid(material.chain_pem, material.key_pem, material.roots_pem, ALICE, now)
    assert len({serial(material) for material in seen}) == 4
    assert len({material.key_pem for material in seen}) == 4
    assert (enrolment.state_dir / CERTIFICATE_FILE).read_bytes() == seen[-1].chain_pem
    assert (enrolment.state_dir / KEY_FILE).read_bytes() == seen[-1].key_pem


async def test_a_restart_past_half_of_its_life_renews_at_once(running: Running):
    """And not after half of what is left: agents that restart often would renew ever later."""
    enrolment = await enrol(running, ttl_s=3600)
    before = (await CertificateKeeper(enrolment).first()).current
    late = CertificateKeeper(enrolment, lambda: datetime.now(UTC) + timedelta(minutes=35))
    async with kept(late) as source, asyncio.timeout(WAIT_S):
        assert serial(source.current) == serial(before)
        assert serial(await source.changed(source.sequence)) != serial(before)


async def test_with_citadel_away_the_last_good_one_stays_and_renewal_comes_back_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
):
    store = MemoryStore()
    async with citadel(tmp_path, store, monkeypatch) as running:
        keeper = CertificateKeeper(await enrol(running, ttl_s=8))
        before = (await keeper.first()).current
    failed = asyncio.Event()
    monkeypatch.setattr(certificates, "log", Telling("certificate.renewal_failed", failed))
    addresses = {f"{name}_address": running.address(name) for name in ("tls", "mtls")}
    async with kept(keeper) as source, asyncio.timeout(WAIT_S):
        await failed.wait()
        assert source.current == before
        async with citadel(tmp_path, store, monkeypatch, **addresses):
            renewed = await source.changed(source.sequence)
    assert serial(renewed) != serial(before)


class Telling:
    """A logger that tells when one event was logged."""

    def __init__(self, event: str, told: asyncio.Event) -> None:
        self._event = event
        self._told = told

    def _log(self, event: str, **_: object) -> None:
        if event == self._event:
            self._told.set()

    debug = info = warning = error = _log


async def test_attempts_grow_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ten thousand agents without a Citadel: each attempt waits longer, up to a bound, and none in step."""
    waits: list[float] = []

    class Enough(Exception):
        pass

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 14:
            raise Enough

    monkeypatch.setattr(asyncio, "sleep", sleep)
    nowhere = tmp_path / "nowhere"
    enrolment = Enrolment(ALICE, "127.0.0.1:1", "127.0.0.1:1", nowhere, nowhere, tmp_path / "state")
    with pytest.raises(Enough):
        await CertificateKeeper(enrolment).first()
    first, longest = certificates.FIRST_BACKOFF_S, certificates.LONGEST_BACKOFF_S
    for number, wait in enumerate(waits):
        base = min(first * 2**number, longest)
        assert 0.5 * base <= wait <= 1.5 * base
    assert len(set(waits)) == len(waits)


async def test_roots_follow_the_bundle(running: Running):
    """What was on disk trusted one root more, or less: Citadel's word replaces it, the certificate stays."""
    enrolment = await enrol(running)
    keeper = CertificateKeeper(enrolment)
    source = await keeper.first()
    stale = (await material_of()).roots_pem + running.roots_pem
    mine = source.current
    put(enrolment.state_dir, TlsMaterial(mine.chain_pem, mine.key_pem, stale))
    async with kept(CertificateKeeper(enrolment)) as again, asyncio.timeout(WAIT_S):
        while again.current.roots_pem != running.roots_pem:
            await again.changed(again.sequence)
        assert again.current == mine
    assert (enrolment.state_dir / ROOTS_FILE).read_bytes() == running.roots_pem


async def nowhere(tmp_path: Path) -> Enrolment:
    """A workload without Citadel, token and state."""
    absent = tmp_path / "nowhere"
    return Enrolment(ALICE, "127.0.0.1:1", "127.0.0.1:1", absent, absent, tmp_path / "state")


async def test_what_a_service_has_kept_elsewhere_will_do(tmp_path: Path):
    kept = await material_of()
    keeper = CertificateKeeper(await nowhere(tmp_path))
    assert keeper.condition is Condition.MISSING
    source = await keeper.first(kept)
    assert source.current == kept
    assert (keeper.condition, keeper.problem) == (Condition.GOOD, "")
    assert keeper.until == load_chain(kept.chain_pem)[0].not_valid_after_utc


async def test_the_own_folder_goes_before_what_was_kept_elsewhere(tmp_path: Path):
    enrolment = await nowhere(tmp_path)
    mine = await material_of()
    put(enrolment.state_dir, mine)
    assert (await CertificateKeeper(enrolment).first(await material_of())).current == mine


@pytest.mark.parametrize(
    ("identity", "age"),
    [(BOB, timedelta(0)), (ALICE, timedelta(hours=2)), (ALICE, timedelta(hours=-2))],
    ids=["of another", "expired", "not yet valid"],
)
async def test_what_does_not_hold_is_never_taken_and_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None, identity: SpiffeId, age: timedelta
):
    kept = await material_of(identity, made_at=datetime.now(UTC) - age)
    failed = asyncio.Event()
    monkeypatch.setattr(certificates, "log", Telling("certificate.waiting", failed))
    keeper = CertificateKeeper(await nowhere(tmp_path))
    waiting = asyncio.create_task(keeper.first(kept))
    async with asyncio.timeout(WAIT_S):
        await failed.wait()
    assert keeper.condition is Condition.MISSING
    assert "waiting for a certificate from Citadel: " in keeper.problem
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_callers_at_the_same_time_share_one_certificate(running: Running):
    """The token is good for one use: a second request would be refused."""
    keeper = CertificateKeeper(await enrol(running))
    first, second = await asyncio.gather(keeper.first(), keeper.first())
    assert first is second


async def test_alarms_rise_while_renewal_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
):
    """A failing renewal is a warning first, an error near the end, and told as the end when it is there."""
    kept = await material_of(ttl_s=1000)
    at = datetime.now(UTC)
    clock = Clock(at)
    keeper = CertificateKeeper(await nowhere(tmp_path), now=clock)
    events: list[str] = []
    monkeypatch.setattr(certificates, "log", Listening(events))
    await keeper.first(kept)
    renewing = asyncio.create_task(keeper._renew_until_done())
    expected = [
        ("certificate.renewal_failed", 100, Condition.GOOD),
        ("certificate.near_expiry", 800, Condition.NEAR_EXPIRY),
        ("certificate.expired", 1001, Condition.EXPIRED),
    ]
    async with asyncio.timeout(WAIT_S):
        for event, after_s, condition in expected:
            clock.now = at + timedelta(seconds=after_s)
            events.clear()
            while event not in events:
                await asyncio.sleep(0.01)
            assert keeper.condition is condition
    assert "has expired at" in keeper.problem
    assert keeper.source.current == kept
    renewing.cancel()
    await asyncio.gather(renewing, return_exceptions=True)


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Listening:
    """A logger that remembers events."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def _log(self, event: str, **_: object) -> None:
        self._events.append(event)

    debug = info = warning = error = _log
