"""Objects as they lie in the store: what one change writes, what it is guarded by, what it records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windward.config.decode import decode_object
from windward.config.object import ConfigObject, ObjectKey
from windward.config.stored import (
    LARGEST_OBJECT_BYTES,
    MOST_PATHS,
    MOST_STEPS,
    Action,
    Author,
    HistoryRecord,
    ObjectTooLarge,
    Plan,
    StoredObject,
    decode_stored,
    differing_paths,
    key_of,
    plan_changes,
    store_key,
)
from windward.store.errors import Conflict
from windward.store.keys import APPLYING, CONFIG, HISTORY
from windward.store.memory import MemoryStore, check_size
from windward.store.protocol import Entry, Remove, Unchanged, Write

EARLY = Author("ada", datetime(2026, 1, 1, tzinfo=UTC), "first")
LATE = Author("ben", datetime(2026, 2, 2, tzinfo=UTC), "second")
JSON = st.recursive(
    st.integers(0, 3) | st.sampled_from(["x", "y"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


def entry_object(name: str = "books", host: str = "books.example", **metadata: Any) -> Any:
    raw = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, **metadata},
        "spec": {
            "hosts": [host],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "DNS",
        },
    }
    made, findings = decode_object(raw)
    assert made is not None, findings
    return made


async def change(
    store: MemoryStore,
    *wanted: ConfigObject[Any],
    remove: tuple[ObjectKey, ...] = (),
    author: Author = EARLY,
) -> Plan:
    keys = (*(item.key for item in wanted), *remove)
    plan = plan_changes(
        {key: await store.get(store_key(key)) for key in keys}, wanted, remove, author
    )
    if plan.transaction is not None:
        await store.commit(plan.transaction)
    return plan


async def history_of(store: MemoryStore) -> list[HistoryRecord]:
    entries = (await store.list(HISTORY)).entries
    return [msgspec.json.decode(entry.value, type=HistoryRecord) for entry in entries]


async def stored(store: MemoryStore, item: ConfigObject[Any]) -> ConfigObject[Any]:
    entry = await store.get(store_key(item.key))
    assert entry is not None
    made, findings = decode_stored(entry)
    assert made is not None, findings
    return made


async def test_a_new_object_is_written_with_its_history_in_one_transaction():
    store = MemoryStore()
    item = entry_object(labels={"app": "books"})
    plan = await change(store, item)
    assert [one.action for one in plan.changes] == [Action.CREATED]
    made = await stored(store, item)
    assert (made.key, made.spec, made.labels) == (item.key, item.spec, {"app": "books"})
    assert (made.generation, made.created_at) == (1, EARLY.when)
    everything = (await store.list("/")).entries
    assert len(everything) == 2
    assert {entry.mod_revision for entry in everything} == {made.revision}
    (record,) = await history_of(store)
    assert (record.who, record.when, record.why) == ("ada", EARLY.when, "first")
    assert (record.action, record.changed) == ("created", ())
    assert record.object == made.raw


async def test_a_change_counts_on_keeps_its_birth_and_says_what_differs():
    store = MemoryStore()
    await change(store, entry_object())
    item = entry_object(host="more.example", labels={"app": "books"})
    plan = await change(store, item, author=LATE)
    assert [(one.action, one.generation) for one in plan.changes] == [(Action.CONFIGURED, 2)]
    made = await stored(store, item)
    assert (made.generation, made.created_at) == (2, EARLY.when)
    first, second = await history_of(store)
    assert first.object is not None
    assert first.object["spec"]["hosts"] == ["books.example"]
    assert (second.who, second.action) == ("ben", "configured")
    assert second.changed == ("metadata.labels", "spec.hosts[0]")


async def test_an_unchanged_object_writes_nothing():
    store = MemoryStore()
    await change(store, entry_object())
    same = entry_object(resourceVersion="7", uid="u", creationTimestamp="2026-01-01T00:00:00Z")
    plan = await change(store, same, author=LATE)
    assert plan.transaction is None
    assert [(one.action, one.generation) for one in plan.changes] == [(Action.UNCHANGED, 1)]


async def test_an_unchanged_object_beside_a_changed_one_is_guarded_but_not_written():
    store = MemoryStore()
    await change(store, entry_object("a"))
    plan = await change(store, entry_object("a"), entry_object("b"))
    assert plan.transaction is not None
    assert [one.action for one in plan.changes] == [Action.UNCHANGED, Action.CREATED]
    assert len(plan.transaction.operations) == 2
    assert len(plan.transaction.conditions) == 3


async def test_a_removal_leaves_its_record():
    store = MemoryStore()
    item = entry_object()
    await change(store, item)
    plan = await change(store, remove=(item.key,), author=LATE)
    assert [(one.action, one.generation) for one in plan.changes] == [(Action.DELETED, 2)]
    assert (await store.list(CONFIG)).entries == ()
    record = (await history_of(store))[-1]
    assert (record.who, record.action, record.object) == ("ben", "deleted", None)


async def test_what_was_read_guards_every_object():
    store = MemoryStore()
    one, other = entry_object("a"), entry_object("b")
    await change(store, one)
    present = {key: await store.get(store_key(key)) for key in (one.key, other.key)}
    plan = plan_changes(present, [other], [one.key], LATE)
    assert plan.transaction is not None
    held = present[one.key]
    assert held is not None
    assert set(plan.transaction.conditions) == {
        Unchanged(store_key(other.key), 0),
        Unchanged(store_key(one.key), held.mod_revision),
        Unchanged(APPLYING, 0),
    }
    await change(store, entry_object("a", host="race.example"))
    with pytest.raises(Conflict):
        await store.commit(plan.transaction)
    assert await store.get(store_key(other.key)) is None


def test_as_many_objects_as_fit_are_one_transaction_and_more_are_none():
    items = [entry_object(f"o{number}") for number in range(MOST_STEPS + 1)]
    transaction = plan_changes({}, items[:MOST_STEPS], [], EARLY).transaction
    assert transaction is not None
    check_size(transaction)
    assert len(transaction.operations) == 2 * MOST_STEPS
    plan = plan_changes({}, items, [], EARLY)
    assert plan.transaction is None
    assert len(plan.steps) == MOST_STEPS + 1


def test_few_objects_of_much_text_are_no_single_transaction_and_one_of_the_largest_is():
    large = [
        entry_object(name, annotations={"note": "x" * (LARGEST_OBJECT_BYTES - 1000)})
        for name in ("a", "b")
    ]
    transaction = plan_changes({}, large[:1], [], EARLY).transaction
    assert transaction is not None
    check_size(transaction)
    assert plan_changes({}, large, [], EARLY).transaction is None


def test_what_stays_as_it_is_counts_for_a_transaction_by_its_conditions_alone():
    items = [entry_object(f"o{number}") for number in range(128)]
    entries = {}
    for item, step in zip(items, plan_changes({}, items, [], EARLY).steps, strict=True):
        assert isinstance(step.object, Write)
        entries[item.key] = Entry(step.object.key, step.object.value, 5, 5, 1)
    changed = entry_object("o0", host="new.example")
    transaction = plan_changes(entries, [changed, *items[1:127]], [], LATE).transaction
    assert transaction is not None
    check_size(transaction)
    assert plan_changes(entries, [changed, *items[1:]], [], LATE).transaction is None


def test_of_very_many_paths_that_differ_history_names_the_first():
    def noted(text: str) -> Any:
        return entry_object(annotations={f"n{number:03}": text for number in range(500)})

    step = plan_changes({}, [noted("a")], [], EARLY).steps[0]
    assert isinstance(step.object, Write)
    present = {entry_object().key: Entry(step.object.key, step.object.value, 5, 5, 1)}
    record = plan_changes(present, [noted("b")], [], LATE).steps[0].history
    changed = msgspec.json.decode(record.value, type=HistoryRecord).changed
    assert changed == tuple(f"metadata.annotations.n{number:03}" for number in range(MOST_PATHS))


def test_an_object_over_the_limit_is_refused_by_name():
    item = entry_object("huge", annotations={"note": "x" * LARGEST_OBJECT_BYTES})
    with pytest.raises(ObjectTooLarge, match="ServiceEntry/default/huge"):
        plan_changes({}, [item], [], EARLY)


def test_what_servers_set_and_status_are_not_stored():
    item = entry_object(generation=9, resourceVersion="7", uid="u", selfLink="/s", managedFields=[])
    plan = plan_changes({}, [item], [], EARLY)
    assert plan.transaction is not None
    write = plan.transaction.operations[0]
    assert isinstance(write, Write)
    kept = msgspec.json.decode(write.value, type=StoredObject)
    assert kept.object["metadata"] == {"name": "books", "namespace": "default"}
    assert kept.schema == 1


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'{"generation":"one"}', b"\xff"])
def test_a_broken_record_is_a_finding(value: bytes):
    made, findings = decode_stored(Entry(CONFIG + "g/K/ns/n", value, 1, 1, 1))
    assert made is None
    assert [finding.code for finding in findings] == ["not-readable"]


def test_an_object_that_is_no_longer_valid_brings_its_findings():
    record = StoredObject(
        generation=1,
        created_at=EARLY.when,
        object={
            "apiVersion": "networking.istio.io/v1",
            "kind": "ServiceEntry",
            "metadata": {"name": "books"},
            "spec": {"hosts": ["books.example"], "nonsense": 1},
        },
    )
    made, findings = decode_stored(Entry(CONFIG + "g/K/ns/n", msgspec.json.encode(record), 1, 1, 1))
    assert made is None
    assert "spec.nonsense" in [finding.path for finding in findings]


def test_a_key_names_its_object_and_nothing_else_does():
    key = ObjectKey("networking.istio.io", "ServiceEntry", "default", "books")
    assert key_of(store_key(key)) == key
    assert key_of(CONFIG + "too/short") is None
    assert key_of(CONFIG + "g/K/ns/n/more") is None
    assert key_of(APPLYING) is None


def test_the_paths_that_differ_are_the_smallest():
    before = {"a": {"b": 1, "c": [1, {"d": 2}]}, "e": [1], "gone": 1}
    after = {"a": {"b": 2, "c": [1, {"d": 3}]}, "e": [1, 2], "new": 1}
    assert sorted(differing_paths(before, after)) == ["a.b", "a.c[1].d", "e", "gone", "new"]


@given(JSON, JSON)
def test_paths_differ_if_and_only_if_values_do(before: Any, after: Any):
    assert differing_paths(before, before) == []
    assert bool(differing_paths(before, after)) == (before != after)
    assert len(set(differing_paths(before, after))) == len(differing_paths(before, after))


def test_a_removal_is_guarded_and_deletes_before_it_records():
    item = entry_object()
    plan = plan_changes({}, [item], [], EARLY)
    assert plan.transaction is not None
    write = plan.transaction.operations[0]
    assert isinstance(write, Write)
    present = {item.key: Entry(write.key, write.value, 5, 5, 1)}
    removal = plan_changes(present, [], [item.key], LATE).transaction
    assert removal is not None
    assert removal.operations[0] == Remove(write.key)
    assert removal.conditions == (Unchanged(write.key, 5), Unchanged(APPLYING, 0))
