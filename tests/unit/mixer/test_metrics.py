from __future__ import annotations

from services.mixer import metrics


def exposed() -> set[str]:
    return {family.name for family in metrics.REGISTRY.collect()}


def test_the_default_metrics_have_istios_names():
    names = exposed()
    assert {
        "istio_requests",
        "istio_request_duration_seconds",
        "istio_request_bytes",
        "istio_response_bytes",
        "istio_tcp_sent_bytes",
        "istio_tcp_received_bytes",
        "istio_tcp_connections_opened",
        "istio_tcp_connections_closed",
    } <= names


def test_http_has_twenty_labels_and_tcp_sixteen_of_them():
    assert len(set(metrics.HTTP_LABELS)) == len(metrics.HTTP_LABELS) == 20
    assert len(set(metrics.TCP_LABELS)) == len(metrics.TCP_LABELS) == 16
    assert set(metrics.HTTP_LABELS) - set(metrics.TCP_LABELS) == {
        "request_protocol",
        "response_code",
        "permissive_response_code",
        "permissive_response_policyid",
    }
