"""How Envoy reaches Mixer: its cluster, and the two check filters, each an ECDS resource.

There are two because fail-open and fail-closed belong to a filter, not to a route. Both are always in the chain; without
a rule of its kind a filter is off (0 %), and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2, extension_pb2, grpc_service_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.filters.http.ext_authz.v3 import ext_authz_pb2
from envoy.type.v3 import percent_pb2

from services.pilot.envoy import names, tls
from services.pilot.envoy.common import address, duration, pack
from windward.identity.names import MIXER_ACCOUNT, ROOT_NAMESPACE
from windward.xds.resource import TYPE_PREFIX

CLUSTER_NAME = "outbound|9091||mixer.istio-system.svc.cluster.local"
CHECK_CLOSED = "windward.mixer.check.closed"
CHECK_OPEN = "windward.mixer.check.open"
CHECK_FILTERS = (CHECK_CLOSED, CHECK_OPEN)
CHECK_TYPE = TYPE_PREFIX + "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
CHECK_TIMEOUT_S = 0.5
FAIL_POLICY_HEADER = "x-windward-fail-policy"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def cluster(addresses: Iterable[str], trust_domain: str) -> cluster_pb2.Cluster:
    """Mixer's replicas, by mTLS, and nobody else's certificate accepted."""
    from services.pilot.envoy.cluster import http_options

    endpoints = []
    for place in addresses:
        host, _, port = place.rpartition(":")
        endpoints.append(
            endpoint_components_pb2.LbEndpoint(
                endpoint=endpoint_components_pb2.Endpoint(address=address(host, int(port)))
            )
        )
    identity = f"spiffe://{trust_domain}/ns/{ROOT_NAMESPACE}/sa/{MIXER_ACCOUNT}"
    made = cluster_pb2.Cluster(
        name=CLUSTER_NAME,
        alt_stat_name=names.statistics(CLUSTER_NAME),
        type=cluster_pb2.Cluster.STRICT_DNS,
        connect_timeout=duration(1),
        load_assignment=endpoint_pb2.ClusterLoadAssignment(
            cluster_name=CLUSTER_NAME,
            endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=endpoints)],
        ),
        transport_socket=tls.upstream("", [identity], ["h2"]),
    )
    options = http_options(http2=True)
    assert options is not None
    made.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(options)
    return made


def check_filter(name: str, *, enabled: bool) -> extension_pb2.TypedExtensionConfig:
    """The ECDS resource of one of the two filters."""
    fails_open = name == CHECK_OPEN
    policy = base_pb2.HeaderValue(key=FAIL_POLICY_HEADER, value="open" if fails_open else "closed")
    filter_ = ext_authz_pb2.ExtAuthz(
        grpc_service=grpc_service_pb2.GrpcService(
            envoy_grpc=grpc_service_pb2.GrpcService.EnvoyGrpc(cluster_name=CLUSTER_NAME),
            timeout=duration(CHECK_TIMEOUT_S),
            initial_metadata=[policy],
        ),
        transport_api_version=config_source_pb2.ApiVersion.V3,
        failure_mode_allow=fails_open,
        bootstrap_metadata_labels_key="LABELS",
        stat_prefix="mixer_open" if fails_open else "mixer_closed",
    )
    filter_.filter_enabled.default_value.CopyFrom(
        percent_pb2.FractionalPercent(
            numerator=100 if enabled else 0, denominator=percent_pb2.FractionalPercent.HUNDRED
        )
    )
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=pack(filter_))
