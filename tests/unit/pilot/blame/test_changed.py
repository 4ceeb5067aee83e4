"""The law of trials: a snapshot in which an object is otherwise is the one that the mesh would have then."""

from __future__ import annotations

import pytest

from services.pilot.blame.changed import with_changes
from services.pilot.state import MeshState
from tests.unit.pilot.mesh import (
    change,
    direct,
    generate,
    make,
    router,
    service_entry,
    sidecar,
    snap,
    workload,
)
from tests.unit.pilot.whole import whole_objects

PROXIES = [sidecar("127.7.0.2"), direct("10.3.0.1"), router()]
WORKLOADS = [workload(), workload("ratings-v1", "127.7.0.4")]
TRIED = [
    item
    for item in whole_objects()
    if item.key.kind
    in {"DestinationRule", "Gateway", "PeerAuthentication", "ServiceEntry", "VirtualService"}
]


def named(made):
    return {
        (url, name): item.version for url, known in made.items() for name, item in known.items()
    }


def same(one, other):
    return all(named(generate(one, proxy)) == named(generate(other, proxy)) for proxy in PROXIES)


@pytest.mark.parametrize("item", TRIED, ids=lambda item: str(item.key))
def test_without_an_object_the_mesh_is_what_it_would_be_without_it(item):
    whole = whole_objects()
    state = MeshState()
    change(state, *whole, workloads=WORKLOADS)
    [there] = [one for one in whole if one.key == item.key]
    changed = with_changes(state.snapshot, [(there, None)])
    assert same(changed, snap(*(one for one in whole if one is not there), workloads=WORKLOADS))


def test_many_changes_at_once_are_all_of_them():
    entries = [service_entry(f"s{number}") for number in range(9)]
    rules = [make("DestinationRule", f"r{n}", {"host": f"s{n}"}) for n in range(9)]
    before = snap(*entries, *rules)
    gone = [(item, None) for item in (*entries[:4], *rules[3:8])]
    assert same(with_changes(before, gone), snap(*entries[4:], *rules[:3], *rules[8:]))


def test_a_workload_entry_may_have_another_address_or_belong_to_nobody():
    def entry(address, **changes):
        labels = {"app": "reviews", **changes}
        return make("WorkloadEntry", "one", {"address": address, "labels": labels})

    other = make("WorkloadEntry", "two", {"address": "10.0.0.2", "labels": {"app": "reviews"}})
    was = entry("10.0.0.1")
    before = snap(service_entry(), was, other)
    for now in (entry("10.0.0.9"), entry("10.0.0.1", app="ratings")):
        changed = with_changes(before, [(was, now)])
        made, wanted = (
            named(generate(it, sidecar())) for it in (changed, snap(service_entry(), now, other))
        )
        assert made == wanted
    assert named(generate(with_changes(before, [(was, None)]), sidecar())) == named(
        generate(snap(service_entry(), other), sidecar())
    )
