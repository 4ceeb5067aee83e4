"""Bad objects below validation, real Envoys: the field is named, nothing good is held back, and what is mended is in force."""

from __future__ import annotations

import pytest

from benchmarks.nacks.seeds import seeds
from benchmarks.nacks.trial import outcomes

TRIED = (
    "match: path, unbalanced",
    "match: query's name",
    "route: request header add, value",
    "route: retry, negative time",
    "route: delay, negative",
    "route: direct response, status",
    "rule: outlier, share",
    "rule: of one subset",
    "rule: a subset's name as SNI",
    "service: endpoint, no IP address",
    "service: host",
    "gateway: path",
    "gateway: retries",
    "gateway: certificate's hash",
    "two of one host",
    "workload: address",
)


@pytest.mark.root
@pytest.mark.timeout(240)  # real processes: a loaded machine needs it
@pytest.mark.parametrize("sotw", [False, True], ids=["delta", "sotw"])
async def test_bad_objects_are_named_with_their_field_and_hold_back_nothing_good(sotw):
    chosen = [seed for seed in seeds() if seed.name in TRIED]
    assert len(chosen) == len(TRIED)
    for outcome in await outcomes(chosen, sotw=sotw):
        assert outcome.good, outcome
