"""Every law by its name, for the test and for ``python -m benchmarks laws``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.laws.engine import (
    earlier_revisions_come_back,
    incremental_is_full,
    order_does_not_matter,
    replicas_serve_identical_bytes,
)
from tests.laws.envoy import references_hold_in_a_living_mesh
from tests.laws.streams import (
    both_protocols_end_alike,
    references_are_there,
    refusals_are_ones_own,
    versions_never_go_back,
)

STEPS: Final = 500
Law = Callable[[Sequence[int], int], None]
"""(seeds, steps of each history) -> nothing, or an AssertionError."""

LAWS: Final[Mapping[str, Law]] = {
    "incremental": incremental_is_full,
    "order": order_does_not_matter,
    "protocols": both_protocols_end_alike,
    "references": references_are_there,
    "references-mesh": references_hold_in_a_living_mesh,
    "never-back": versions_never_go_back,
    "refusals": refusals_are_ones_own,
    "replicas": replicas_serve_identical_bytes,
    "earlier": earlier_revisions_come_back,
}
