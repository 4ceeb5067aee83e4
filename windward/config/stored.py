"""Objects as they lie in the store, and the transaction that changes several of them: all or nothing, with history.

    present entries + wanted objects + removals + (who, when, why) -> Plan(one Transaction, what happens to each)

Pure. Every change is one transaction: the object and its history record together, each guarded by what was read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

import msgspec

from windward.config.decode import decode_object
from windward.config.finding import Finding
from windward.config.object import ConfigObject, ObjectKey
from windward.store.keys import CONFIG, config_key, history_key
from windward.store.protocol import Condition, Entry, Remove, Transaction, Unchanged, Write

LARGEST_OBJECT_BYTES: Final = 512 * 1024
MOST_OBJECTS: Final = 60
"""Object and history are two operations, and a transaction has at most 128."""
_SERVER_SET: Final = (
    "generation",
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "managedFields",
    "selfLink",
)


class StoredObject(msgspec.Struct, frozen=True, kw_only=True):
    generation: int
    created_at: datetime
    object: dict[str, Any]
    schema: int = 1


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One change: read by nobody yet, written from the start."""

    who: str
    when: datetime
    why: str
    action: str
    changed: tuple[str, ...]
    """Paths of the fields that differ from the generation before."""
    object: dict[str, Any] | None
    schema: int = 1


class Action(Enum):
    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    key: ObjectKey
    action: Action
    generation: int


@dataclass(frozen=True, slots=True)
class Plan:
    transaction: Transaction | None
    """None when nothing changes."""
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Author:
    who: str
    when: datetime
    why: str = ""


class TooManyObjects(ValueError):
    """More objects than one transaction holds."""


class ObjectTooLarge(ValueError):
    """An object over the limit; names it."""


def store_key(key: ObjectKey) -> str:
    return config_key(key.group, key.kind, key.namespace, key.name)


def key_of(store_path: str) -> ObjectKey | None:
    """The object that a key of the store names; None for a key that names none."""
    parts = store_path.removeprefix(CONFIG).split("/")
    return ObjectKey(*parts) if len(parts) == 4 else None


def decode_stored(entry: Entry) -> tuple[ConfigObject[Any] | None, tuple[Finding, ...]]:
    """An object from its entry; None with findings for what this version does not understand."""
    try:
        stored = msgspec.json.decode(entry.value, type=StoredObject)
    except msgspec.DecodeError as error:
        return None, (Finding("", "not-readable", f"the stored record is broken: {error}"),)
    made, findings = decode_object(stored.object)
    if made is None:
        return None, findings
    whole = ConfigObject(
        key=made.key,
        spec=made.spec,
        raw=made.raw,
        labels=made.labels,
        annotations=made.annotations,
        revision=entry.mod_revision,
        generation=stored.generation,
        created_at=stored.created_at,
    )
    return whole, findings


def plan_changes(
    present: Mapping[ObjectKey, Entry | None],
    wanted: Sequence[ConfigObject[Any]],
    removals: Sequence[ObjectKey],
    author: Author,
) -> Plan:
    """One transaction for all of it. Raises TooManyObjects or ObjectTooLarge."""
    if len(wanted) + len(removals) > MOST_OBJECTS:
        raise TooManyObjects(
            f"{len(wanted) + len(removals)} objects at once: at most {MOST_OBJECTS}; apply them in parts"
        )
    operations: list[Write | Remove] = []
    conditions: list[Condition] = []
    changes: list[Change] = []
    for item in wanted:
        entry = present.get(item.key)
        change, writes = _upsert(item, entry, author)
        changes.append(change)
        operations += writes
        conditions.append(Unchanged(store_key(item.key), entry.mod_revision if entry else 0))
    for key in removals:
        entry = present[key]
        assert entry is not None, "callers remove what exists"
        stored = _read(entry, author)
        generation = stored.generation + 1
        operations.append(Remove(store_key(key)))
        operations.append(
            _history(key, stored.created_at, generation, author, Action.DELETED, (), None)
        )
        conditions.append(Unchanged(store_key(key), entry.mod_revision))
        changes.append(Change(key, Action.DELETED, generation))
    transaction = Transaction(tuple(operations), tuple(conditions)) if operations else None
    return Plan(transaction, tuple(changes))


def _read(entry: Entry, author: Author) -> StoredObject:
    """What is stored. A record that cannot be read must not stand in the way of its own mending or removal."""
    try:
        return msgspec.json.decode(entry.value, type=StoredObject)
    except msgspec.DecodeError:
        return StoredObject(generation=entry.version, created_at=author.when, object={})


def _upsert(
    item: ConfigObject[Any], entry: Entry | None, author: Author
) -> tuple[Change, list[Write]]:
    raw = canonical(item)
    if entry is None:
        generation, created, before = 1, author.when, None
    else:
        stored = _read(entry, author)
        if stored.object == raw:
            return Change(item.key, Action.UNCHANGED, stored.generation), []
        generation, created, before = stored.generation + 1, stored.created_at, stored.object
    value = msgspec.json.encode(StoredObject(generation=generation, created_at=created, object=raw))
    if len(value) > LARGEST_OBJECT_BYTES:
        raise ObjectTooLarge(
            f"{item.key}: {len(value)} bytes, at most {LARGEST_OBJECT_BYTES} are stored"
        )
    action = Action.CREATED if before is None else Action.CONFIGURED
    changed = tuple(sorted(differing_paths(before, raw))) if before is not None else ()
    history = _history(item.key, created, generation, author, action, changed, raw)
    return Change(item.key, action, generation), [Write(store_key(item.key), value), history]


def _history(
    key: ObjectKey,
    created: datetime,
    generation: int,
    author: Author,
    action: Action,
    changed: tuple[str, ...],
    raw: dict[str, Any] | None,
) -> Write:
    record = HistoryRecord(
        who=author.who,
        when=author.when,
        why=author.why,
        action=action.value,
        changed=changed,
        object=raw,
    )
    created_ms = int(created.timestamp() * 1000)
    path = history_key(key.group, key.kind, key.namespace, key.name, created_ms, generation)
    return Write(path, msgspec.json.encode(record))


def canonical(item: ConfigObject[Any]) -> dict[str, Any]:
    """What is stored: as the user wrote it, its namespace said, without what servers set and without status."""
    metadata = {key: value for key, value in item.raw["metadata"].items() if key not in _SERVER_SET}
    metadata["namespace"] = item.key.namespace
    raw = {key: value for key, value in item.raw.items() if key != "status"}
    return {**raw, "metadata": metadata}


def differing_paths(before: Any, after: Any, path: str = "") -> list[str]:
    """Paths of the smallest fields in which two JSON values differ."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        found: list[str] = []
        for key in {**before, **after}:
            below = f"{path}.{key}" if path else str(key)
            found += differing_paths(before.get(key), after.get(key), below)
        return found
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [
            item
            for index, (one, other) in pairs
            for item in differing_paths(one, other, f"{path}[{index}]")
        ]
    return [path]
