"""Proof that a mesh is one: real requests through real Envoys, and what they show.

    Mesh that is up -> checks, in order -> [{"check", "expected", "seen", "ok"}]

Every check says what it expects before it looks. Checks that a mode cannot make (plaintext refused, in loopback mode)
are not in the list.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

from windward.local.addresses import Mode
from windward.local.mesh import Mesh
from windward.local.parts import identity
from windward.local.ready import http_get

REQUESTS = 300
TESTER_REQUESTS = 50
LANES = 8
METRICS_DEADLINE_S = 15.0


@dataclass(frozen=True, slots=True)
class Check:
    check: str
    expected: str
    seen: str
    ok: bool

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run of requests to the shop's front page brought."""

    statuses: Counter[int]
    pages: tuple[dict[str, Any], ...]

    def review_versions(self) -> Counter[str]:
        return Counter(
            str(page["reviews"]["version"]) for page in self.pages if page.get("reviews")
        )


async def prove(mesh: Mesh) -> AsyncIterator[Check]:
    """Run every check against the Bookshop; yields each as it is made."""
    before = await requests_counted(mesh)
    answers = await shop(mesh, REQUESTS)
    yield _all_answered(answers)
    yield _split(answers)
    tester = await shop(mesh, TESTER_REQUESTS, headers={"end-user": "tester"})
    seen = tester.review_versions()
    yield Check(
        "a tester is routed by header to reviews v2",
        f"{TESTER_REQUESTS} of {TESTER_REQUESTS}",
        f"{seen['v2']} of {sum(tester.statuses.values())}",
        seen["v2"] == TESTER_REQUESTS,
    )
    yield _caller_identity(mesh, answers)
    if mesh.mode is Mode.NAMESPACES:
        yield await _plaintext_refused(mesh)
    if mesh.options.interception == "tproxy":
        yield _client_address(mesh, answers)
    denied = 0
    if mesh.options.mixer:
        check, denied = await _denied(mesh)
        yield check
        wanted = REQUESTS + TESTER_REQUESTS + denied
        yield await _counted(mesh, before, wanted)
    yield await _in_sync(mesh)


def _all_answered(answers: Answers) -> Check:
    total = sum(answers.statuses.values())
    seen = ", ".join(f"{count} x {status}" for status, count in sorted(answers.statuses.items()))
    ok = answers.statuses[200] == total == REQUESTS
    return Check(
        "requests through gateway and sidecars are answered", f"{REQUESTS} x 200", seen, ok
    )


def _split(answers: Answers) -> Check:
    """90/10 within four standard deviations of a binomial distribution."""
    versions = answers.review_versions()
    total = sum(versions.values())
    share = versions["v3"]
    spread = 4 * math.sqrt(total * 0.1 * 0.9)
    ok = total == REQUESTS and abs(share - total * 0.1) <= spread and versions["v2"] == 0
    return Check(
        "reviews are split 90/10 between v1 and v3",
        f"{total * 0.1:.0f} ± {spread:.0f} of {total} from v3",
        f"{share} from v3, {versions['v1']} from v1",
        ok,
    )


def _caller_identity(mesh: Mesh, answers: Answers) -> Check:
    """The reviews service saw, in x-forwarded-client-cert, who called it over mTLS."""
    caller = identity("storefront", "bookshop", mesh.options.trust_domain)
    certificates = [
        str(page["reviews"]["client_cert"]) for page in answers.pages if page.get("reviews")
    ]
    seen = {match for text in certificates for match in re.findall(r"URI=([^;,]+)", text)}
    return Check(
        "calls are mTLS: the server sees the caller's identity",
        caller,
        ", ".join(sorted(seen)) or "none",
        seen == {caller} and len(certificates) == REQUESTS,
    )


def _client_address(mesh: Mesh, answers: Answers) -> Check:
    """TPROXY: the address that the reviews service sees its connections come from."""
    caller = mesh.plan.place("storefront-v1").address
    seen = {str(page["reviews"]["client_address"]) for page in answers.pages if page.get("reviews")}
    return Check(
        "applications see their clients' own addresses",
        caller,
        ", ".join(sorted(seen)) or "none",
        seen == {caller},
    )


async def _plaintext_refused(mesh: Mesh) -> Check:
    """A plaintext request from outside the mesh straight to a workload."""
    address = mesh.plan.place("catalog-v1").address
    try:
        status, _ = await http_get(address, 9080, "/books/1", timeout_s=5)
        seen = f"answered {status}"
    except TimeoutError:
        seen = "no answer"
    except OSError:
        seen = "refused"
    return Check("plaintext from outside the mesh (STRICT)", "refused", seen, seen == "refused")


async def _denied(mesh: Mesh) -> tuple[Check, int]:
    """Mixer's rule keeps the catalog from answering for book 3; other books pass. Waits for the rule to be in force."""
    deadline = monotonic() + METRICS_DEADLINE_S
    sent = 0
    while True:
        page = await _get_json(mesh, "/3", {})
        sent += 1
        status = page.get("catalog_status")
        if status == 403 or monotonic() > deadline:
            break
        await asyncio.sleep(0.2)
    other = await _get_json(mesh, "/1", {})
    sent += 1
    return (
        Check(
            "Mixer's rule denies one path, others pass",
            "403 for book 3, 200 for book 1",
            f"{status} for book 3, {other.get('catalog_status')} for book 1",
            status == 403 and other.get("catalog_status") == 200,
        ),
        sent,
    )


async def _counted(mesh: Mesh, before: float, wanted: int) -> Check:
    """Mixer's istio_requests_total, as the storefront's own sidecar reports it."""
    deadline = monotonic() + METRICS_DEADLINE_S
    counted = await requests_counted(mesh) - before
    while counted < wanted and monotonic() < deadline:
        await asyncio.sleep(0.2)
        counted = await requests_counted(mesh) - before
    return Check(
        'istio_requests_total{reporter="destination"} of the storefront',
        str(wanted),
        f"{counted:.0f}",
        counted == wanted,
    )


async def _in_sync(mesh: Mesh) -> Check:
    proxies = await mesh.administrator.proxies()
    synced = sum(all(kind.state == "SYNCED" for kind in proxy.types.values()) for proxy in proxies)
    wanted = len(mesh.topology.names)
    return Check(
        "every Envoy has accepted its configuration",
        f"{wanted} of {wanted} in sync",
        f"{synced} of {len(proxies)} in sync",
        synced == len(proxies) == wanted,
    )


async def requests_counted(mesh: Mesh) -> float:
    """Sum of istio_requests_total for the storefront as destination; 0 without Mixer."""
    if not mesh.options.mixer:
        return 0.0
    _, body = await http_get("127.0.0.1", mesh.specs.ports.mixer_metrics, "/metrics", timeout_s=5)
    total = 0.0
    for line in body.decode().splitlines():
        if (
            line.startswith("istio_requests_total{")
            and 'reporter="destination"' in line
            and 'destination_app="storefront"' in line
        ):
            total += float(line.rsplit(" ", 1)[1])
    return total


async def shop(mesh: Mesh, count: int, headers: dict[str, str] | None = None) -> Answers:
    """Ask for the front page ``count`` times over a few connections."""
    statuses: Counter[int] = Counter()
    pages: list[dict[str, Any]] = []
    numbers = iter(range(count))

    async def lane(session: object) -> None:
        for _ in numbers:
            async with session.get(mesh.gateway_url + "/1", headers=headers or {}) as response:  # type: ignore[attr-defined]
                statuses[response.status] += 1
                if response.status == 200:
                    pages.append(await response.json())

    from aiohttp import ClientSession, ClientTimeout

    async with (
        ClientSession(timeout=ClientTimeout(total=20)) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(LANES):
            group.create_task(lane(session))
    return Answers(statuses, tuple(pages))


async def _get_json(mesh: Mesh, path: str, headers: dict[str, str]) -> dict[str, object]:
    from aiohttp import ClientSession, ClientTimeout

    async with (
        ClientSession(timeout=ClientTimeout(total=20)) as session,
        session.get(mesh.gateway_url + path, headers=headers) as response,
    ):
        answer = json.loads(await response.text()) if response.status == 200 else {}
        return dict(answer)
