"""Every fuzz target by its name. A new one is a class in a module here, and a line below."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from benchmarks.fuzz.target import Target

TARGETS: Final = {
    "ads-delta": "streams:AdsDelta",
    "ads-sotw": "streams:AdsSotw",
    "long-requests": "long:LongRequests",
    "config": "config:Config",
    "node": "node:Node",
    "envelopes": "envelopes:Envelopes",
    "last-good": "last_good:LastGood",
    "dns-queries": "dns:DnsQueries",
    "name-tables": "dns:NameTables",
    "registry-files": "registries:Files",
    "registry-consul": "registries:Consul",
    "registry-dns": "registries:Dns",
    "http2": "http2:Http2",
}
"""Name -> module and class: what a target tests is imported when it runs."""


def target_of(name: str) -> Target:
    module, _, kind = TARGETS[name].partition(":")
    return cast("Target", getattr(import_module(f"{__name__}.{module}"), kind)())
