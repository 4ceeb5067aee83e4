"""Objects and their names, as ConfigService's messages have them."""

from __future__ import annotations

import json

from google.protobuf.timestamp_pb2 import Timestamp

from windward.api.config.v1 import config_pb2
from windward.config.object import ObjectKey
from windward.config.stored import StoredObject
from windward.records import read_json
from windward.rpc.errors import invalid
from windward.store.protocol import Entry


def ref(group: str, kind: str, namespace: str, name: str) -> config_pb2.ObjectRef:
    return config_pb2.ObjectRef(group=group, kind=kind, namespace=namespace, name=name)


def ref_of(key: ObjectKey) -> config_pb2.ObjectRef:
    return ref(key.group, key.kind, key.namespace, key.name)


def object_key(given: config_pb2.ObjectRef) -> ObjectKey:
    parts = (given.group, given.kind, given.namespace, given.name)
    if not all(parts) or any("/" in part for part in parts):
        raise invalid("an object is named by group, kind, namespace and name")
    return ObjectKey(*parts)


def object_of(key: ObjectKey, entry: Entry) -> config_pb2.Object:
    stored = read_json(entry.value, StoredObject)
    created = Timestamp()
    created.FromDatetime(stored.created_at)
    return config_pb2.Object(
        ref=ref_of(key),
        json=json.dumps(stored.object).encode(),
        revision=entry.mod_revision,
        generation=stored.generation,
        created_at=created,
    )
