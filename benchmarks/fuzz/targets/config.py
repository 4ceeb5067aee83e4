"""Objects as users write them: JSON -> findings, or resources for every shape of proxy.

An execution is one object beside a few that are good. Asserted: nothing is raised; an object is refused if and only if one of its
findings is an error, and each of these says a field that is there, or is missing where it says so; what is taken is taken again
the same; what it makes is built for a proxy and serialised.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from random import Random
from types import ModuleType
from typing import Any, Final

from benchmarks.fuzz.target import Single
from benchmarks.fuzz.trees import copied, mutate_tree
from services.pilot.envoy import (
    cluster,
    endpoint,
    gateway,
    listener,
    match,
    outbound,
    route,
    selection,
    server_tls,
    virtual_host,
)
from services.pilot.envoy.generate import generate
from services.pilot.envoy.options import Options
from services.pilot.state import MeshState
from tests.unit.pilot.mesh import direct, make, port, router, service_entry, sidecar, workload
from tests.unit.pilot.whole import whole_objects
from windward import config
from windward.config.decode import decode_object, errors
from windward.config.object import ConfigObject

OPTIONS: Final = Options(trust_domain="cluster.local", allow_any=True, mixer_addresses=())
PROXIES: Final = (
    sidecar("127.7.0.2", account="reviews", labels={"app": "reviews", "version": "v1"}),
    router(),
    direct("127.7.0.2", account="reviews", labels={"app": "reviews"}),
)


class Config(Single):
    @property
    def modules(self) -> Sequence[ModuleType]:
        import sys

        found = [
            module for name, module in sys.modules.items() if name.startswith(f"{config.__name__}.")
        ]
        return [
            *sorted(found, key=lambda module: module.__name__),
            *(
                cluster,
                endpoint,
                gateway,
                listener,
                match,
                outbound,
                route,
                selection,
                server_tls,
                virtual_host,
            ),
        ]

    def __init__(self) -> None:
        beside = [
            service_entry("reviews"),
            service_entry("ratings", ports=[port(), port(3306, "TCP", "tcp")]),
            make("DestinationRule", "ratings", {"host": "ratings"}),
        ]
        self._beside = {item.key: item for item in beside}
        workloads = [workload(), workload("ratings-v1", "127.7.0.4")]
        self._served = {(item.namespace, item.name): (item, True) for item in workloads}
        raws = [*(item.raw for item in whole_objects()), *(make(*item).raw for item in _MORE)]
        self._seeds = [part for raw in raws for part in _parts(raw)]
        self._words = tuple(sorted(_words(self._seeds)))

    def seeds(self) -> Sequence[dict[str, Any]]:
        return self._seeds

    def mutate(self, random: Random, chosen: Any, other: Any) -> Any:
        """Mostly of the spec alone: metadata and kinds are few."""
        if (
            isinstance(chosen, dict)
            and isinstance(chosen.get("spec"), dict)
            and random.random() < 0.9
        ):
            theirs = other.get("spec") if isinstance(other, dict) else other
            return {
                **copied(chosen),
                "spec": mutate_tree(random, chosen["spec"], theirs, self._words),
            }
        made = mutate_tree(random, chosen, other, self._words)
        return made if isinstance(made, dict) else {"spec": made}

    def execute(self, given: dict[str, Any]) -> Hashable:
        made, findings = decode_object(given)
        refused = errors(findings)
        assert (made is None) == bool(refused)
        for item in findings:
            assert item.message
            assert item.path, item
        if made is None:
            return " ".join((str(given.get("kind"))[:20], *_said(refused)))
        again, _ = decode_object(made.raw)
        assert again is not None
        assert repr(again.spec) == repr(made.spec)
        return made.key.kind, self._built(made), _said(findings)

    def _built(self, made: ConfigObject[Any]) -> Hashable:
        state = MeshState()
        state.apply({**self._beside, made.key: made}, self._served, 1)
        which = len(repr(made.raw)) % len(PROXIES)
        resources = generate(state.snapshot, PROXIES[which], OPTIONS)
        for named in resources.values():
            for item in named.values():
                assert item.body
                assert item.name.encode()
        return which, sum(map(len, resources.values()))


def _parts(raw: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """An object with each of its routes or servers alone: a mistake in one hides what the others would have done."""
    spec = raw["spec"]
    lists = [key for key in ("http", "servers") if len(spec.get(key, ())) > 1]
    if not lists:
        yield dict(raw)
    for key in lists:
        for item in spec[key]:
            yield {**raw, "spec": {**spec, key: [item]}}


def _said(findings: Sequence[Any]) -> tuple[str, ...]:
    """Which fields, without their indices, and what is wrong with them."""
    paths = (
        "".join(sign for sign in item.path[:40] if not sign.isdecimal()) for item in findings[:2]
    )
    return tuple(f"{path} {item.code}" for path, item in zip(paths, findings, strict=False))


def _words(tree: Any) -> set[str]:
    """Every key and short text of the seeds."""
    if isinstance(tree, dict):
        return {str(key) for key in tree}.union(*map(_words, tree.values()))
    if isinstance(tree, list):
        return set[str]().union(*map(_words, tree))
    return {tree} if isinstance(tree, str) and len(tree) < 40 else set()


_MORE: Final[Sequence[tuple[str, str, dict[str, Any]]]] = (
    (
        "DestinationRule",
        "more",
        {
            "host": "reviews",
            "trafficPolicy": {
                "loadBalancer": {"simple": "LEAST_REQUEST"},
                "tls": {"mode": "DISABLE"},
                "outlierDetection": {"consecutive5xxErrors": 1, "baseEjectionTime": "30s"},
                "portLevelSettings": [
                    {"port": {"number": 9080}, "connectionPool": {"tcp": {"maxConnections": 1}}}
                ],
            },
            "exportTo": ["*"],
        },
    ),
    (
        "Sidecar",
        "more",
        {
            "workloadSelector": {"labels": {"app": "reviews"}},
            "egress": [{"hosts": ["./*", "*/ratings.shop.svc.cluster.local"]}],
        },
    ),
    (
        "WorkloadEntry",
        "more",
        {
            "address": "10.0.0.7",
            "labels": {"app": "reviews"},
            "ports": {"http": 8080},
            "weight": 2,
            "serviceAccount": "reviews",
            "locality": "eu/a",
        },
    ),
    (
        "WorkloadGroup",
        "more",
        {
            "metadata": {"labels": {"app": "reviews"}},
            "template": {"serviceAccount": "reviews"},
            "probe": {"httpGet": {"port": 80, "path": "/"}},
        },
    ),
)
