"""Several registries as one: the first that has a host wins, whatever the order of events."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.pilot.registry.merge import Conflict, Merge
from services.pilot.registry.protocol import RegistryBatch
from tests.unit.pilot.mesh import make
from windward.config.object import ConfigObject, ObjectKey

NAMES = ("mesh", "files", "consul")


def entry(name: str, *hosts: str, addresses: tuple[str, ...] = ()) -> ConfigObject[Any]:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    spec: dict[str, Any] = {"hosts": list(hosts), "ports": ports, "resolution": "STATIC"}
    return make("ServiceEntry", name, {**spec, "addresses": list(addresses)})


def workload(name: str, address: str = "10.0.0.1") -> ConfigObject[Any]:
    return make("WorkloadEntry", name, {"address": address})


def hosts(batch: RegistryBatch) -> dict[str, tuple[str, ...]]:
    return {item.key.name: item.spec.hosts for item in batch.upserts}


def put(*items: ConfigObject[Any], whole: bool = False) -> RegistryBatch:
    return RegistryBatch(items, (), whole)


def test_what_nobody_else_has_passes_as_it_is():
    merge = Merge(NAMES)
    one = entry("one", "a.com", "b.com")
    assert merge.apply("consul", put(one, workload("w"))).upserts == (one, workload("w"))
    assert not merge.conflicts


def test_the_first_registry_wins_a_host_and_gives_it_back():
    merge = Merge(NAMES)
    merge.apply("consul", put(entry("late", "a.com", "b.com")))
    told = merge.apply("mesh", put(entry("early", "a.com")))
    assert hosts(told) == {"early": ("a.com",), "late": ("b.com",)}
    assert merge.conflicts == {Conflict("a.com", "consul", "mesh")}
    back = merge.apply("mesh", RegistryBatch(removed=(entry("early", "a.com").key,)))
    assert hosts(back) == {"late": ("a.com", "b.com")}
    assert back.removed == (entry("early", "a.com").key,)
    assert not merge.conflicts


def test_without_a_host_left_it_is_not_told_at_all():
    merge = Merge(NAMES)
    late = entry("late", "a.com")
    merge.apply("consul", put(late))
    assert merge.apply("files", put(entry("early", "a.com"))).removed == (late.key,)
    assert merge.apply("consul", put(late)) == RegistryBatch()


def test_addresses_leave_with_their_hosts_where_they_are_pairs():
    merge = Merge(NAMES)
    merge.apply("mesh", put(entry("early", "a.com")))
    pairs = entry("pairs", "a.com", "b.com", addresses=("10.1.0.1", "10.1.0.2"))
    (left,) = merge.apply("files", put(pairs)).upserts
    assert left.spec.addresses == ("10.1.0.2",)
    shared = entry("shared", "a.com", "c.com", addresses=("10.1.0.3",))
    (left,) = merge.apply("files", put(shared)).upserts
    assert left.spec.addresses == ("10.1.0.3",)


def test_an_object_of_the_same_name_is_the_first_registrys():
    merge = Merge(NAMES)
    merge.apply("consul", put(entry("same", "b.com"), workload("w", "10.0.0.2")))
    told = merge.apply("files", put(entry("same", "a.com"), workload("w")))
    assert [item.spec for item in told.upserts] == [entry("same", "a.com").spec, workload("w").spec]
    # What is hidden claims nothing.
    assert not merge.conflicts
    gone = merge.apply("files", RegistryBatch(whole=True))
    assert hosts(RegistryBatch(gone.upserts[:1])) == {"same": ("b.com",)}
    assert not gone.removed


def test_a_whole_batch_is_all_there_is():
    merge = Merge(NAMES)
    merge.apply("files", put(entry("one", "a.com"), entry("two", "b.com")))
    again = merge.apply("files", put(entry("two", "b.com"), whole=True))
    assert (again.upserts, again.removed) == ((), (entry("one", "a.com").key,))
    assert (merge.count("files"), merge.count("mesh")) == (1, 0)


def test_within_one_registry_nothing_is_decided():
    merge = Merge(NAMES)
    told = merge.apply("mesh", put(entry("one", "a.com"), entry("two", "a.com")))
    assert hosts(told) == {"one": ("a.com",), "two": ("a.com",)}
    assert not merge.conflicts


item = st.one_of(
    st.tuples(st.sampled_from("abc"), st.sets(st.sampled_from(["x.com", "y.com", "z.com"]), min_size=1)).map(
        lambda made: entry(made[0], *sorted(made[1]))
    ),
    st.sampled_from("abc").map(workload),
)  # fmt: skip
steps = st.lists(
    st.tuples(st.sampled_from(NAMES), st.lists(item, max_size=3), st.sampled_from(["put", "remove", "whole"])),
    max_size=12,
)  # fmt: skip


@given(steps)
def test_whatever_the_history_the_result_is_that_of_what_stands_now(history):
    merge = Merge(NAMES)
    held: dict[str, dict[ObjectKey, ConfigObject[Any]]] = {name: {} for name in NAMES}
    told: dict[ObjectKey, ConfigObject[Any]] = {}
    for name, items, how in history:
        mine = held[name]
        if how == "remove":
            batch = RegistryBatch(removed=tuple(item.key for item in items))
            for thing in items:
                mine.pop(thing.key, None)
        else:
            batch = put(*items, whole=how == "whole")
            if how == "whole":
                mine.clear()
            mine.update({thing.key: thing for thing in items})
        made = merge.apply(name, batch)
        for key in made.removed:
            del told[key]
        for thing in made.upserts:
            assert told.get(thing.key) != thing, "what has not changed is not told again"
            told[thing.key] = thing
    fresh: dict[ObjectKey, ConfigObject[Any]] = {}
    taken: dict[str, str] = {}
    for name in NAMES:
        mine = {key: thing for key, thing in held[name].items() if key not in fresh}
        hidden = {key for other in NAMES[: NAMES.index(name)] for key in held[other]}
        for key, thing in mine.items():
            if key in hidden:
                continue
            if key.kind == "WorkloadEntry":
                fresh[key] = thing
                continue
            left = tuple(h for h in thing.spec.hosts if taken.get(h, name) == name)
            taken |= dict.fromkeys(left, name)
            if left:
                fresh[key] = make_with(thing, left)
    assert told == fresh


def make_with(thing: ConfigObject[Any], left: tuple[str, ...]) -> ConfigObject[Any]:
    from dataclasses import replace

    import msgspec

    return replace(thing, spec=msgspec.structs.replace(thing.spec, hosts=left))
