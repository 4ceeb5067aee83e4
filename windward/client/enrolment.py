"""How a service becomes somebody: the settings that say where Citadel is, and the wait for the first certificate."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from windward.client.certificates import CertificateKeeper, Enrolment, RefusedByCitadel
from windward.identity.names import ROOT_NAMESPACE, TRUST_DOMAIN
from windward.identity.spiffe_id import workload_id
from windward.process import FatalError, ProcessSettings
from windward.rpc.credentials import TlsMaterial


class EnrolledSettings(ProcessSettings, frozen=True, kw_only=True):
    """Of every service that has its certificate from Citadel."""

    citadel_address: Annotated[str, Meta(description="Citadel for callers with a token")]
    citadel_mtls_address: Annotated[str, Meta(description="Citadel for callers with a certificate")]
    trust_bundle_file: Annotated[
        str, Meta(description="PEM of the root that Citadel must chain to")
    ]
    token_file: Annotated[str, Meta(description="join token, for the first certificate")]
    state_dir: Annotated[str, Meta(description="where certificate and key are kept (0600)")]
    trust_domain: Annotated[str, Meta(description="the mesh's trust domain")] = TRUST_DOMAIN


def control_plane_enrolment(settings: EnrolledSettings, account: str) -> Enrolment:
    """Of a control-plane service: an account of the root namespace."""
    return Enrolment(
        identity=workload_id(settings.trust_domain, ROOT_NAMESPACE, account),
        tls_address=settings.citadel_address,
        mtls_address=settings.citadel_mtls_address,
        trust_bundle_file=Path(settings.trust_bundle_file),
        token_file=Path(settings.token_file),
        state_dir=Path(settings.state_dir),
    )


async def enrolled(
    keeper: CertificateKeeper, stopping: asyncio.Event, kept: TlsMaterial | None = None
) -> bool:
    """Wait for the first certificate; False when told to stop before. Raises FatalError when Citadel says no.

    ``kept``: one that the service has from elsewhere; taken only if it still holds.
    """
    stop = asyncio.create_task(stopping.wait())
    first = asyncio.create_task(keeper.first(kept))
    try:
        await asyncio.wait({stop, first}, return_when=asyncio.FIRST_COMPLETED)
        if first.done():
            first.result()
        return first.done()
    except RefusedByCitadel as error:
        raise FatalError(str(error)) from error
    finally:
        stop.cancel()
        first.cancel()
        await asyncio.gather(stop, first, return_exceptions=True)
