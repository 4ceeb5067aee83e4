"""Keeping one identity's certificate: obtained from Citadel, renewed at half its life, kept on disk for a restart.

    disk (0600) -> still good? -> TlsSource
    token on the TLS port (first time), current certificate on the mTLS port (ever after) -> new key, CSR -> chain
    Citadel away: the last good certificate stays in force while it is valid; attempts go on with jittered back-off, and
    once less than a quarter of its life is left they are errors

A new key for every request; it never leaves this process and its state folder.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path

import grpc

from windward.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from windward.api.trust.v1 import trust_pb2, trust_pb2_grpc
from windward.identity.certificate import CertificateError, check_svid, load_chain
from windward.identity.csr import new_csr
from windward.identity.keys import key_pem, new_key
from windward.identity.names import CITADEL_ACCOUNT, CONTROL_PLANE_DNS
from windward.identity.spiffe_id import SpiffeId
from windward.rpc.channel import ChannelSource
from windward.rpc.credentials import TlsMaterial, TlsSource
from windward.telemetry.logging import get_logger

log = get_logger()
CALL_TIMEOUT_S = 5.0
FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 15.0
CERTIFICATE_FILE = "certificate.pem"
KEY_FILE = "key.pem"
ROOTS_FILE = "roots.pem"
NEW = ".new"


LONGEST_WAIT_SHARE = 0.1
"""Of what a certificate has left, at most this is waited between attempts to renew it."""
NEAR_EXPIRY_SHARE = 0.25
"""Of the time that a certificate had left when it came: with less than that, a failing renewal is an alarm."""


class RefusedByCitadel(Exception):
    """Citadel answered, and said no: a wrong token, or an identity it does not certify."""


class Condition(IntEnum):
    """How the certificate in force is. The number is the metric's."""

    GOOD = 0
    NEAR_EXPIRY = 1
    """Renewal fails, and time runs out."""
    EXPIRED = 2
    MISSING = 3


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Who to become, and how to reach Citadel."""

    identity: SpiffeId
    tls_address: str
    mtls_address: str
    trust_bundle_file: Path
    token_file: Path
    state_dir: Path
    ttl_s: int = 0
    """Asked lifetime; 0 is Citadel's default."""


class CertificateKeeper:
    """Use: ``await keeper.first()``, then ``keeper.source``, with ``keeper.run()`` in a task group."""

    def __init__(
        self, enrolment: Enrolment, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._enrolment = enrolment
        self._now = now
        self._source: TlsSource | None = None
        self._obtaining = asyncio.Lock()
        self._until: datetime | None = None
        """When the certificate in force ends."""
        self._alarm_at: datetime | None = None
        """From when on a failing renewal is an alarm."""
        self._life_s = 0.0
        """Of the certificate in force, from whenever it came."""
        self.failing = ""
        """Why the last attempt to get a certificate failed; empty after one that did not."""

    @property
    def source(self) -> TlsSource:
        assert self._source is not None, "no certificate yet: await first()"
        return self._source

    @property
    def identity(self) -> SpiffeId:
        return self._enrolment.identity

    @property
    def until(self) -> datetime | None:
        """When the certificate in force ends."""
        return self._until

    @property
    def condition(self) -> Condition:
        now = self._now()
        if self._until is None or self._alarm_at is None:
            return Condition.MISSING
        if self._until <= now:
            return Condition.EXPIRED
        return Condition.NEAR_EXPIRY if self.failing and now >= self._alarm_at else Condition.GOOD

    @property
    def problem(self) -> str:
        """Why there is no certificate to serve; empty while there is one."""
        match self.condition:
            case Condition.MISSING:
                return (
                    f"waiting for a certificate from Citadel: {self.failing or 'not answered yet'}"
                )
            case Condition.EXPIRED:
                return f"the certificate has expired at {self._until}, and Citadel gives no new one: {self.failing}"
            case _:
                return ""

    async def first(self, kept: TlsMaterial | None = None) -> TlsSource:
        """The first usable certificate: from disk, ``kept`` elsewhere, or from Citadel, however long that takes.

        Callers at the same time share one request. Raises RefusedByCitadel.
        """
        async with self._obtaining:
            if self._source is None:
                old = self._load() or self._checked(kept)
                material = old or await self._obtain_first()
                self._source = TlsSource(material)
                self._in_force(material, old=old is not None)
            return self._source

    async def _obtain_first(self) -> TlsMaterial:
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                return await self._obtain()
            except (grpc.aio.AioRpcError, OSError, CertificateError) as error:
                if isinstance(error, grpc.aio.AioRpcError) and _is_refusal(error):
                    raise RefusedByCitadel(self._refusal(error)) from error
                self.failing = _reason(error)
                log.warning(
                    "certificate.waiting",
                    reason=self.failing,
                    citadel=self._enrolment.tls_address,
                )
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.5))  # noqa: S311  jitter, not a secret
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    async def run(self) -> None:
        """Renew for ever, and follow the trust bundle."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew())
            group.create_task(self._follow_bundle())

    async def _renew(self) -> None:
        while True:
            leaf = load_chain(self.source.current.chain_pem)[0]
            left_s = (leaf.not_valid_after_utc - self._now()).total_seconds()
            share = 0.5 + random.uniform(-0.01, 0.01)  # noqa: S311  jitter, not a secret
            await asyncio.sleep(max(left_s - self._life_s * share, 0.0))
            await self._renew_until_done()

    async def _renew_until_done(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                material = await self._obtain()
            except (grpc.aio.AioRpcError, OSError, CertificateError) as error:
                self._renewal_failed(error)
            else:
                self._in_force(material)
                self.source.replace(material)
                log.info("certificate.renewed", identity=str(self._enrolment.identity))
                return
            wait_s = backoff_s * random.uniform(0.5, 1.5)  # noqa: S311  jitter, not a secret
            await asyncio.sleep(min(wait_s, self._pressing_s()))
            backoff_s = min(backoff_s * 2, LONGEST_BACKOFF_S)

    def _pressing_s(self) -> float:
        """The longest to wait between attempts: a short life is not waited away."""
        left_s = (self._until - self._now()).total_seconds() if self._until else 0.0
        return (
            max(left_s * LONGEST_WAIT_SHARE, FIRST_BACKOFF_S) if left_s > 0 else LONGEST_BACKOFF_S
        )

    def _renewal_failed(self, error: Exception) -> None:
        self.failing = _reason(error)
        until, reason = str(self._until), self.failing
        match self.condition:
            case Condition.EXPIRED:
                log.error("certificate.expired", expired_at=until, reason=reason)
            case Condition.NEAR_EXPIRY:
                log.error("certificate.near_expiry", expires_at=until, reason=reason)
            case _:
                log.warning("certificate.renewal_failed", expires_at=until, reason=reason)

    def _in_force(self, material: TlsMaterial, *, old: bool = False) -> None:
        """Remember when it ends, and from when on it is to be worried about.

        Of one that comes from Citadel all that is left counts as its life, for it begins a little before it was made;
        of an old one the whole, or agents that restart would renew ever later.
        """
        now, leaf = self._now(), load_chain(material.chain_pem)[0]
        self._until = leaf.not_valid_after_utc
        self._life_s = (self._until - (leaf.not_valid_before_utc if old else now)).total_seconds()
        self._alarm_at = self._until - (self._until - now) * NEAR_EXPIRY_SHARE
        self.failing = ""

    async def _follow_bundle(self) -> None:
        """Roots in force follow Citadel's stream; a broken stream is opened again."""
        channels = self._mtls_channels()
        try:
            while True:
                stub = trust_pb2_grpc.TrustServiceStub(channels.channel())
                try:
                    async for bundle in stub.WatchTrustBundle(trust_pb2.WatchTrustBundleRequest()):
                        self._put_roots(bundle.roots_pem.encode())
                except (grpc.aio.AioRpcError, CertificateError) as error:
                    log.debug("bundle.stream_broken", reason=_reason(error))
                await asyncio.sleep(random.uniform(1.0, 3.0))  # noqa: S311  jitter, not a secret
        finally:
            await channels.close()

    def _put_roots(self, roots_pem: bytes) -> None:
        load_chain(roots_pem)
        current = self.source.current
        material = TlsMaterial(current.chain_pem, current.key_pem, roots_pem)
        if material != current:
            self._save(material)
            self.source.replace(material)

    async def _obtain(self) -> TlsMaterial:
        """One attempt: by the current certificate if it is still valid, else by the token."""
        enrolment = self._enrolment
        key = new_key()
        request = ca_pb2.IstioCertificateRequest(
            csr=new_csr(key, enrolment.identity).decode(), validity_duration=enrolment.ttl_s
        )
        metadata: tuple[tuple[str, str], ...] = ()
        if self._source is not None and self._still_valid(self._source.current):
            channels = self._mtls_channels()
        else:
            roots = enrolment.trust_bundle_file.read_bytes()
            metadata = (("authorization", f"Bearer {enrolment.token_file.read_text().strip()}"),)
            channels = ChannelSource(
                [enrolment.tls_address],
                server_name=CONTROL_PLANE_DNS[CITADEL_ACCOUNT],
                roots_pem=roots,
            )
        try:
            stub = ca_pb2_grpc.IstioCertificateServiceStub(channels.channel())
            answer = await stub.CreateCertificate(
                request, timeout=CALL_TIMEOUT_S, metadata=metadata
            )
        finally:
            await channels.close()
        if len(answer.cert_chain) < 2:
            raise CertificateError("Citadel's answer has no chain with a root")
        chain = "".join(answer.cert_chain[:-1]).encode()
        material = TlsMaterial(chain, key_pem(key), answer.cert_chain[-1].encode())
        check_svid(chain, material.key_pem, material.roots_pem, enrolment.identity, self._now())
        self._save(material)
        return material

    def _mtls_channels(self) -> ChannelSource:
        return ChannelSource(
            [self._enrolment.mtls_address],
            server_name=CONTROL_PLANE_DNS[CITADEL_ACCOUNT],
            source=self.source,
        )

    def _still_valid(self, material: TlsMaterial) -> bool:
        return load_chain(material.chain_pem)[0].not_valid_after_utc > self._now()

    def _load(self) -> TlsMaterial | None:
        """What an earlier run left, if everything about it still holds."""
        folder = self._enrolment.state_dir
        try:
            material = TlsMaterial(
                (folder / CERTIFICATE_FILE).read_bytes(),
                (folder / KEY_FILE).read_bytes(),
                (folder / ROOTS_FILE).read_bytes(),
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("certificate.on_disk_unusable", reason=str(error))
            return None
        return self._checked(material)

    def _checked(self, material: TlsMaterial | None) -> TlsMaterial | None:
        """The material, if everything about it holds now: identity, time, key, chain."""
        if material is None:
            return None
        chain, key, roots = material.chain_pem, material.key_pem, material.roots_pem
        reason = ""
        try:
            check_svid(chain, key, roots, self._enrolment.identity, self._now())
        except CertificateError as error:
            reason = str(error)
        if reason:
            log.error("certificate.on_disk_unusable", reason=reason)
            return None
        return material

    def _save(self, material: TlsMaterial) -> None:
        """Keep it for a restart; a disk that is full or read-only is no reason to be without a certificate."""
        folder = self._enrolment.state_dir
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            parts = {
                KEY_FILE: material.key_pem,
                CERTIFICATE_FILE: material.chain_pem,
                ROOTS_FILE: material.roots_pem,
            }
            # All of them first: a disk that fills up between two would leave a key and another key's certificate.
            for name, content in parts.items():
                descriptor = os.open(
                    folder / (name + NEW), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
                )
                with os.fdopen(descriptor, "wb") as file:
                    file.write(content)
            for name in parts:
                (folder / (name + NEW)).replace(folder / name)
        except OSError as error:
            log.warning("certificate.not_kept", reason=str(error))

    def _refusal(self, error: grpc.aio.AioRpcError) -> str:
        return (
            f"Citadel at {self._enrolment.tls_address} refuses the token in {self._enrolment.token_file} for "
            f"{self._enrolment.identity} ({error.details()}): make a new one with `windward token create`"
        )


def _is_refusal(error: grpc.aio.AioRpcError) -> bool:
    return error.code() in {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }


def _reason(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    with suppress(Exception):
        return str(error)
    return type(error).__name__
