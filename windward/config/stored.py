"""Objects as they lie in the store, and what a change of several of them writes: all or nothing, with history.

    present entries + wanted objects + removals + (who, when, why) -> Plan(steps, guards, what happens to each)

Pure. A step is one object and its history record together. What fits goes into one transaction, guarded by what was
read; what does not is staged (staged.py).
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
from windward.records import read_json
from windward.store.keys import APPLYING, CONFIG, config_key, history_key
from windward.store.protocol import Entry, Remove, Transaction, Unchanged, Write

LARGEST_OBJECT_BYTES: Final = 512 * 1024
MOST_STEPS: Final = 60
"""Of one transaction: a step is two operations, and a transaction has at most 128."""
MOST_BYTES: Final = 1_200_000
"""Of one transaction, which may have 1.5 MB: its frame takes room too. The largest step has 1.1 MB."""
MOST_CONDITIONS: Final = 128
MOST_PATHS: Final = 100
"""Of a history record: the whole of an object is in it anyway."""
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
    """Paths of the fields that differ from the generation before; the first of them, if there are very many."""
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
class Step:
    """What one object's change writes."""

    object: Write | Remove
    history: Write

    @property
    def size_bytes(self) -> int:
        value = self.object.value if isinstance(self.object, Write) else b""
        return len(self.object.key) + len(value) + len(self.history.key) + len(self.history.value)


@dataclass(frozen=True, slots=True)
class Plan:
    steps: tuple[Step, ...]
    """Of the objects that change."""
    guards: tuple[Unchanged, ...]
    """What was read of every object, also of those that stay as they are."""
    changes: tuple[Change, ...]

    @property
    def transaction(self) -> Transaction | None:
        """All of it at once; None when nothing changes, or when it is too much for one transaction."""
        conditions = (*self.guards, Unchanged(APPLYING, 0))
        if not self.steps or len(self.steps) > MOST_STEPS or len(conditions) > MOST_CONDITIONS:
            return None
        if sum(step.size_bytes for step in self.steps) > MOST_BYTES:
            return None
        operations = [item for step in self.steps for item in (step.object, step.history)]
        return Transaction(tuple(operations), conditions)


@dataclass(frozen=True, slots=True)
class Author:
    who: str
    when: datetime
    why: str = ""


class ObjectTooLarge(ValueError):
    """An object over the limit; names it."""


def store_key(key: ObjectKey) -> str:
    return config_key(key.group, key.kind, key.namespace, key.name)


def key_of(store_path: str) -> ObjectKey | None:
    """The object that a key of the store names; None for a key that names none."""
    parts = store_path.removeprefix(CONFIG).split("/")
    return ObjectKey(*parts) if store_path.startswith(CONFIG) and len(parts) == 4 else None


def decode_stored(entry: Entry) -> tuple[ConfigObject[Any] | None, tuple[Finding, ...]]:
    """An object from its entry; None with findings for what this version does not understand."""
    try:
        stored = read_json(entry.value, StoredObject)
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
    """What turns what is present into what is wanted. Raises ObjectTooLarge."""
    steps: list[Step] = []
    guards: list[Unchanged] = []
    changes: list[Change] = []
    for item in wanted:
        entry = present.get(item.key)
        change, step = _upsert(item, entry, author)
        changes.append(change)
        if step is not None:
            steps.append(step)
        guards.append(Unchanged(store_key(item.key), entry.mod_revision if entry else 0))
    for key in removals:
        entry = present[key]
        assert entry is not None, "callers remove what exists"
        stored = _read(entry, author)
        generation = stored.generation + 1
        record = _history(key, stored.created_at, generation, author, Action.DELETED, (), None)
        steps.append(Step(Remove(store_key(key)), record))
        guards.append(Unchanged(store_key(key), entry.mod_revision))
        changes.append(Change(key, Action.DELETED, generation))
    return Plan(tuple(steps), tuple(guards), tuple(changes))


def _read(entry: Entry, author: Author) -> StoredObject:
    """What is stored. A record that cannot be read must not stand in the way of its own mending or removal."""
    try:
        return read_json(entry.value, StoredObject)
    except msgspec.DecodeError:
        return StoredObject(generation=entry.version, created_at=author.when, object={})


def _upsert(
    item: ConfigObject[Any], entry: Entry | None, author: Author
) -> tuple[Change, Step | None]:
    raw = canonical(item)
    if entry is None:
        generation, created, before = 1, author.when, None
    else:
        stored = _read(entry, author)
        if stored.object == raw:
            return Change(item.key, Action.UNCHANGED, stored.generation), None
        generation, created, before = stored.generation + 1, stored.created_at, stored.object
    value = msgspec.json.encode(StoredObject(generation=generation, created_at=created, object=raw))
    if len(value) > LARGEST_OBJECT_BYTES:
        raise ObjectTooLarge(
            f"{item.key}: {len(value)} bytes, at most {LARGEST_OBJECT_BYTES} are stored"
        )
    action = Action.CREATED if before is None else Action.CONFIGURED
    changed = tuple(sorted(differing_paths(before, raw)))[:MOST_PATHS] if before is not None else ()
    history = _history(item.key, created, generation, author, action, changed, raw)
    return Change(item.key, action, generation), Step(Write(store_key(item.key), value), history)


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
