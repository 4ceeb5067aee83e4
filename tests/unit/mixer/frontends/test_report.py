from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from services.mixer import metrics
from services.mixer.attributes.workloads import Workloads
from services.mixer.frontends import report
from services.mixer.frontends.report import Reporter, ReportService
from tests.unit.mixer.frontends.wire import a_workload, served

numbers = itertools.count(1)
CONTEXT: Any = None
"""A stream is counted without looking at it."""


class Pair:
    """A caller and a callee with names of their own: the registry of metrics is one for all tests."""

    def __init__(self) -> None:
        number = next(numbers)
        self.source, self.destination = f"front-{number}", f"back-{number}"
        self.host = f"back-{number}.harbour.svc.cluster.local"
        self.workloads = Workloads()
        self.workloads.put(a_workload(self.source, "10.0.0.1"))
        self.workloads.put(a_workload(self.destination, "10.0.0.2", "v2"))

    def identifier(self, log_name: str = "windward.inbound", **metadata: Any) -> Any:
        own = self.destination if log_name == "windward.inbound" else self.source
        made = als_pb2.StreamAccessLogsMessage.Identifier(log_name=log_name)
        values = {
            "WORKLOAD_NAME": own,
            "NAMESPACE": "harbour",
            "SERVICE_ACCOUNT": f"{own}-account",
            **metadata,
        }
        made.node.metadata.update(values)
        return made

    def http(self, code: int = 200, agent: str = "") -> accesslog_pb2.HTTPAccessLogEntry:
        entry = accesslog_pb2.HTTPAccessLogEntry()
        self._common(entry.common_properties)
        entry.request.user_agent = agent
        entry.request.request_headers_bytes, entry.request.request_body_bytes = 30, 12
        entry.response.response_code.value = code
        entry.response.response_headers_bytes, entry.response.response_body_bytes = 100, 900
        return entry

    def tcp(self, sent: int, received: int) -> accesslog_pb2.TCPAccessLogEntry:
        entry = accesslog_pb2.TCPAccessLogEntry()
        self._common(entry.common_properties)
        entry.connection_properties.sent_bytes = sent
        entry.connection_properties.received_bytes = received
        return entry

    def _common(self, common: accesslog_pb2.AccessLogCommon) -> None:
        common.downstream_remote_address.socket_address.address = "10.0.0.1"
        common.upstream_remote_address.socket_address.address = "10.0.0.2"
        common.upstream_cluster = f"outbound|9080|v2|{self.host}"
        common.duration.FromMilliseconds(30)
        common.custom_tags["destination_service"] = self.host
        common.custom_tags["destination_service_name"] = self.destination
        common.custom_tags["destination_service_namespace"] = "harbour"
        name = common.tls_properties.peer_certificate_properties.subject_alt_name.add()
        name.uri = f"spiffe://cluster.local/ns/harbour/sa/{self.source}-account"

    async def send(self, *messages: als_pb2.StreamAccessLogsMessage) -> None:
        """One stream; when it returns, all of it is counted."""
        add = als_pb2_grpc.add_AccessLogServiceServicer_to_server
        async with served(add, ReportService(self.workloads, "cluster.local")) as channel:
            stub = als_pb2_grpc.AccessLogServiceStub(channel)  # type: ignore[no-untyped-call,unused-ignore]
            await stub.StreamAccessLogs(iter(messages), timeout=20)

    async def report(
        self,
        *entries: accesslog_pb2.HTTPAccessLogEntry,
        log_name: str = "windward.inbound",
    ) -> None:
        await self.send(message(*entries, identifier=self.identifier(log_name)))

    def series(self, metric: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series about this pair."""
        return [
            (sample.labels, sample.value)
            for family in metrics.REGISTRY.collect()
            for sample in family.samples
            if sample.name == metric
            and {self.source, self.destination}
            & {sample.labels.get("source_workload"), sample.labels.get("destination_workload")}
        ]

    def only(self, metric: str) -> tuple[dict[str, str], float]:
        (found,) = self.series(metric)
        return found


def message(
    *entries: accesslog_pb2.HTTPAccessLogEntry, identifier: Any = None
) -> als_pb2.StreamAccessLogsMessage:
    made = als_pb2.StreamAccessLogsMessage(identifier=identifier)
    made.http_logs.log_entry.extend(entries)
    return made


@pytest.fixture
def pair() -> Pair:
    return Pair()


async def test_an_inbound_entry_has_all_labels(pair: Pair):
    await pair.report(pair.http())
    assert pair.only("istio_requests_total") == (
        {
            "reporter": "destination",
            "source_app": pair.source,
            "source_principal": f"spiffe://cluster.local/ns/harbour/sa/{pair.source}-account",
            "source_workload": pair.source,
            "source_workload_namespace": "harbour",
            "source_version": "v1",
            "destination_app": pair.destination,
            "destination_principal": f"spiffe://cluster.local/ns/harbour/sa/{pair.destination}-account",
            "destination_workload": pair.destination,
            "destination_workload_namespace": "harbour",
            "destination_version": "v2",
            "destination_service": pair.host,
            "destination_service_name": pair.destination,
            "destination_service_namespace": "harbour",
            "request_protocol": "http",
            "response_code": "200",
            "response_flags": "-",
            "permissive_response_code": "none",
            "permissive_response_policyid": "none",
            "connection_security_policy": "mutual_tls",
        },
        1.0,
    )


async def test_an_outbound_entry_is_the_sources_view(pair: Pair):
    await pair.report(pair.http(), log_name="windward.outbound")
    labels, count = pair.only("istio_requests_total")
    assert count == 1
    assert labels["reporter"] == "source"
    assert (labels["source_workload"], labels["source_version"]) == (pair.source, "v1")
    assert (labels["destination_workload"], labels["destination_version"]) == (
        pair.destination,
        "v2",
    )
    assert labels["destination_service"] == pair.host
    assert labels["destination_service_name"] == pair.destination
    assert labels["destination_service_namespace"] == "harbour"
    assert labels["connection_security_policy"] == "unknown"


async def test_every_entry_of_a_stream_counts_exactly_once(pair: Pair):
    codes = [200] * 37 + [403] * 5 + [503]
    messages = [message(identifier=pair.identifier())]
    messages += [message(*(pair.http(code) for code in codes)) for _ in range(20)]
    await pair.send(*messages)
    counted = {
        labels["response_code"]: value for labels, value in pair.series("istio_requests_total")
    }
    assert counted == {"200": 740, "403": 100, "503": 20}


async def test_streams_add_up(pair: Pair):
    for _ in range(3):
        await pair.report(pair.http(), pair.http())
    assert pair.only("istio_requests_total")[1] == 6


async def test_duration_and_sizes_are_measured(pair: Pair):
    await pair.report(pair.http(), pair.http())
    assert pair.only("istio_request_duration_seconds_sum")[1] == pytest.approx(0.06)
    assert pair.only("istio_request_duration_seconds_count")[1] == 2
    assert pair.only("istio_request_bytes_sum")[1] == 84
    assert pair.only("istio_response_bytes_sum")[1] == 2000
    buckets = {
        labels["le"]: value
        for labels, value in pair.series("istio_request_duration_seconds_bucket")
    }
    assert (buckets["0.025"], buckets["0.05"], buckets["+Inf"]) == (0, 2, 2)


async def test_without_a_duration_the_last_byte_ends_a_request(pair: Pair):
    entry = pair.http()
    entry.common_properties.ClearField("duration")
    entry.common_properties.time_to_last_downstream_tx_byte.FromMilliseconds(70)
    await pair.report(entry)
    assert pair.only("istio_request_duration_seconds_sum")[1] == pytest.approx(0.07)


@pytest.mark.parametrize("agent", ["kube-probe/1.30", "Prometheus/2.50"])
async def test_probes_are_no_requests(pair: Pair, agent):
    await pair.report(pair.http(agent=agent), pair.http(agent=f"not-{agent}"))
    assert pair.only("istio_requests_total")[1] == 1


async def test_a_plaintext_stranger_is_unknown(pair: Pair):
    entry = pair.http()
    common = entry.common_properties
    common.ClearField("tls_properties")
    common.downstream_remote_address.socket_address.address = "10.9.9.9"
    await pair.report(entry)
    labels, _ = pair.only("istio_requests_total")
    assert labels["connection_security_policy"] == "none"
    for name in ("app", "principal", "workload", "workload_namespace", "version"):
        assert labels[f"source_{name}"] == "unknown"


@pytest.mark.parametrize(
    ("cluster", "service", "name", "namespace"),
    [
        ("outbound|80||a.b.svc.cluster.local", "a.b.svc.cluster.local", "a", "b"),
        ("outbound|443||books.example.com", "books.example.com", "books.example.com", "unknown"),
        ("PassthroughCluster", "unknown", "unknown", "unknown"),
        ("BlackHoleCluster", "unknown", "unknown", "unknown"),
        ("", "unknown", "unknown", "unknown"),
    ],
)
async def test_an_outbound_service_is_read_from_the_cluster(
    pair: Pair, cluster, service, name, namespace
):
    entry = pair.http()
    entry.common_properties.upstream_cluster = cluster
    await pair.report(entry, log_name="windward.outbound")
    labels, _ = pair.only("istio_requests_total")
    assert labels["destination_service"] == service
    assert labels["destination_service_name"] == name
    assert labels["destination_service_namespace"] == namespace


async def test_a_request_without_an_upstream_is_counted(pair: Pair):
    entry = pair.http(503)
    entry.common_properties.ClearField("upstream_remote_address")
    entry.common_properties.response_flags.no_healthy_upstream = True
    await pair.report(entry, log_name="windward.outbound")
    labels, count = pair.only("istio_requests_total")
    assert count == 1
    assert labels["response_flags"] == "UH"
    assert labels["destination_workload"] == labels["destination_principal"] == "unknown"


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (["upstream_connection_failure"], "UF"),
        (["no_route_found"], "NR"),
        (["fault_injected"], "FI"),
        (["upstream_retry_limit_exceeded", "upstream_connection_failure"], "UF,URX"),
    ],
)
async def test_response_flags_are_envoys_short_names(pair: Pair, flags, shown):
    entry = pair.http(503)
    for flag in flags:
        setattr(entry.common_properties.response_flags, flag, True)
    await pair.report(entry)
    assert pair.only("istio_requests_total")[0]["response_flags"] == shown


async def test_grpc_is_told_by_its_content_type(pair: Pair):
    entry = pair.http()
    entry.request.request_headers["content-type"] = "application/grpc+proto"
    await pair.report(entry)
    assert pair.only("istio_requests_total")[0]["request_protocol"] == "grpc"


async def test_bytes_and_connections_of_tcp_are_counted(pair: Pair):
    made = als_pb2.StreamAccessLogsMessage(identifier=pair.identifier())
    made.tcp_logs.log_entry.extend([pair.tcp(10, 3), pair.tcp(20, 4)])
    await pair.send(made)
    labels, sent = pair.only("istio_tcp_sent_bytes_total")
    assert sent == 30
    assert set(labels) == set(metrics.TCP_LABELS)
    assert pair.only("istio_tcp_received_bytes_total")[1] == 7
    assert pair.only("istio_tcp_connections_closed_total")[1] == 2
    assert not pair.series("istio_requests_total")


async def test_a_stream_that_does_not_say_who_reports_counts_nothing(pair: Pair):
    await pair.send(message(pair.http()), message(pair.http(), identifier=pair.identifier()))
    assert pair.only("istio_requests_total")[1] == 1


async def test_an_unregistered_reporter_is_what_its_node_says(pair: Pair):
    own: dict[str, Any] = {
        "WORKLOAD_NAME": pair.destination,
        "LABELS": {"app": "quay", "version": "v7"},
    }
    identifier = pair.identifier(**own)
    pair.workloads = Workloads()
    await pair.send(message(pair.http(), identifier=identifier))
    labels, _ = pair.only("istio_requests_total")
    assert (labels["destination_app"], labels["destination_version"]) == ("quay", "v7")
    assert labels["destination_workload"] == pair.destination
    assert labels["source_workload"] == "unknown"
    assert labels["source_principal"].endswith(f"{pair.source}-account")


def test_a_node_without_metadata_is_nobody():
    reporter = Reporter.of(als_pb2.StreamAccessLogsMessage.Identifier(log_name="windward.inbound"))
    assert reporter == Reporter(inbound=True, name="", namespace="", service_account="", labels={})


async def count(pair: Pair, *parts: als_pb2.StreamAccessLogsMessage | Callable[[], None]) -> None:
    """One stream; what can be called happens between its messages."""

    async def sent() -> AsyncIterator[als_pb2.StreamAccessLogsMessage]:
        for part in parts:
            if isinstance(part, als_pb2.StreamAccessLogsMessage):
                yield part
            else:
                part()

    await ReportService(pair.workloads, "cluster.local").StreamAccessLogs(sent(), CONTEXT)


async def test_a_stream_that_is_open_hears_of_workloads_that_come_and_change(pair: Pair):
    def moved() -> None:
        pair.workloads.put(a_workload(pair.source, "10.0.0.1", "v9"))

    first, again = message(pair.http(), identifier=pair.identifier()), message(pair.http())
    await count(pair, first, again, moved, message(pair.http(), pair.http()))
    counted = {
        labels["source_version"]: value for labels, value in pair.series("istio_requests_total")
    }
    assert counted == {"v1": 2, "v9": 2}


KINDS = st.fixed_dictionaries(
    {
        "code": st.sampled_from((200, 403, 503)),
        "address": st.sampled_from(("10.0.0.1", "10.0.0.2", "10.0.0.9")),
        "cluster": st.sampled_from(("outbound|80||a.b.svc.x", "outbound|80|v2|c.d.svc.x", "")),
        "tag": st.sampled_from(("a.b.svc.x", "c.d.svc.x", "")),
        "principal": st.sampled_from(("spiffe://x/ns/a/sa/b", "")),
        "timeout": st.booleans(),
        "grpc": st.booleans(),
        "milliseconds": st.integers(0, 3000),
    }
)


def an_entry(pair: Pair, kind: dict[str, Any]) -> accesslog_pb2.HTTPAccessLogEntry:
    entry = pair.http(kind["code"])
    common = entry.common_properties
    common.downstream_remote_address.socket_address.address = kind["address"]
    common.upstream_remote_address.socket_address.address = kind["address"]
    common.upstream_cluster = kind["cluster"]
    common.custom_tags["destination_service"] = kind["tag"]
    common.tls_properties.Clear()
    if kind["principal"]:
        name = common.tls_properties.peer_certificate_properties.subject_alt_name.add()
        name.uri = kind["principal"]
    common.response_flags.upstream_request_timeout = kind["timeout"]
    if kind["grpc"]:
        entry.request.request_headers["content-type"] = "application/grpc+proto"
    common.duration.FromMilliseconds(kind["milliseconds"])
    return entry


@given(st.lists(KINDS, max_size=12), st.sampled_from(("windward.inbound", "windward.outbound")))
@settings(max_examples=15, deadline=None)
def test_one_stream_counts_what_a_stream_an_entry_counts(kinds, log_name):
    """What a stream remembers of kinds changes no label."""
    one, each = Pair(), Pair()

    async def both() -> None:
        sent = message(*(an_entry(one, kind) for kind in kinds))
        await count(one, message(identifier=one.identifier(log_name)), sent)
        for kind in kinds:
            of_each = message(an_entry(each, kind), identifier=each.identifier(log_name))
            await count(each, of_each)

    asyncio.run(both())
    for metric in ("istio_requests_total", "istio_request_duration_seconds_sum"):
        seen, wanted = one.series(metric), each.series(metric)
        renamed = str(wanted).replace(each.source, one.source)
        assert str(seen) == renamed.replace(each.destination, one.destination)


async def test_kinds_without_end_are_counted_and_not_all_remembered(pair: Pair, monkeypatch):
    monkeypatch.setattr(report, "MOST_KINDS", 3)
    first = message(identifier=pair.identifier())
    await count(pair, first, *(message(pair.http(code)) for code in range(200, 230) for _ in "ab"))
    assert [value for _, value in pair.series("istio_requests_total")] == [2.0] * 30
