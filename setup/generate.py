"""Generates what is never committed: stubs of our own protos and type stubs of Envoy's.

in   proto/**.proto                     the project's own text
     the installed xds-protos           Envoy's messages, which carry descriptors but no type stubs
out  windward/api/**_pb2{,_grpc}.py     with .pyi beside them
     stubs/envoy/**.pyi                 for mypy

Everything our protos need lies under the virtual folder ``windward/api`` (protoc's ``-Ivirtual=real``), so the
generated modules import one another by their place in this package.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
API = ROOT / "windward" / "api"
STUBS = ROOT / "stubs"

ENVOY_MODULES = (
    "envoy.admin.v3.config_dump_pb2",
    "envoy.config.bootstrap.v3.bootstrap_pb2",
    "envoy.config.cluster.v3.cluster_pb2",
    "envoy.config.endpoint.v3.endpoint_pb2",
    "envoy.config.listener.v3.listener_pb2",
    "envoy.config.rbac.v3.rbac_pb2",
    "envoy.config.route.v3.route_pb2",
    "envoy.data.accesslog.v3.accesslog_pb2",
    "envoy.extensions.access_loggers.file.v3.file_pb2",
    "envoy.extensions.access_loggers.grpc.v3.als_pb2",
    "envoy.extensions.clusters.dynamic_forward_proxy.v3.cluster_pb2",
    "envoy.extensions.filters.common.fault.v3.fault_pb2",
    "envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2",
    "envoy.extensions.filters.http.fault.v3.fault_pb2",
    "envoy.extensions.filters.http.rbac.v3.rbac_pb2",
    "envoy.extensions.filters.http.router.v3.router_pb2",
    "envoy.extensions.filters.listener.http_inspector.v3.http_inspector_pb2",
    "envoy.extensions.filters.listener.original_dst.v3.original_dst_pb2",
    "envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2",
    "envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2",
    "envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2",
    "envoy.extensions.transport_sockets.raw_buffer.v3.raw_buffer_pb2",
    "envoy.extensions.transport_sockets.tls.v3.secret_pb2",
    "envoy.extensions.transport_sockets.tls.v3.tls_pb2",
    "envoy.extensions.upstreams.http.v3.http_protocol_options_pb2",
    "envoy.service.accesslog.v3.als_pb2",
    "envoy.service.auth.v3.external_auth_pb2",
    "envoy.service.discovery.v3.ads_pb2",
    "envoy.service.discovery.v3.discovery_pb2",
    "envoy.service.secret.v3.sds_pb2",
)


SERVICE_MODULES = (
    "envoy.service.accesslog.v3.als_pb2_grpc",
    "envoy.service.auth.v3.external_auth_pb2_grpc",
)
"""gRPC modules of xds-protos that we subclass; descriptors say nothing of them, so they are Any."""


def generate_api() -> int:
    """Compile every .proto of the project into ``windward/api``; return how many there were."""
    from grpc_tools import protoc

    shutil.rmtree(API, ignore_errors=True)
    API.mkdir(parents=True)
    well_known = str(resources.files("grpc_tools") / "_proto")
    googleapis = Path(importlib.import_module("google.rpc.status_pb2").__file__ or "").parents[2]
    ours = sorted(PROTO.rglob("*.proto"))
    names = [virtual_name(path) for path in ours]
    arguments = [
        "protoc",
        f"-Iwindward/api={PROTO / 'windward'}",
        f"-Iwindward/api={PROTO}",
        f"-I{well_known}",
        f"-I{googleapis}",
        f"--python_out={ROOT}",
        f"--grpc_python_out={ROOT}",
        f"--plugin=protoc-gen-mypy={tool('protoc-gen-mypy')}",
        f"--plugin=protoc-gen-mypy_grpc={tool('protoc-gen-mypy_grpc')}",
        f"--mypy_out=quiet:{ROOT}",
        f"--mypy_grpc_out=quiet:{ROOT}",
        *names,
    ]
    if protoc.main(arguments):
        sys.exit("generate: protoc refused the project's protos (its message stands above)")
    for folder in [API, *(path for path in API.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    return len(ours)


def virtual_name(path: Path) -> str:
    """The name of a .proto below ``windward/api``; ``proto/windward`` itself adds no level."""
    relative = path.relative_to(PROTO)
    if relative.parts[0] == "windward":
        relative = relative.relative_to("windward")
    return f"windward/api/{relative.as_posix()}"


def tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def generate_envoy_stubs() -> int:
    """Write type stubs for Envoy's messages, made from the descriptors in xds-protos; return how many.

    xds-protos ships no ``.pyi``. Each generated module keeps its file descriptor, and a descriptor is all that
    mypy-protobuf's plugin asks of protoc.
    """
    from google.protobuf.compiler import plugin_pb2

    seen: set[str] = set()
    request = plugin_pb2.CodeGeneratorRequest()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        file.CopyToProto(request.proto_file.add())
        if not file.name.startswith("google/protobuf/"):  # types-protobuf has those
            request.file_to_generate.append(file.name)

    for name in ENVOY_MODULES:
        add(importlib.import_module(name).DESCRIPTOR)
    run = subprocess.run(
        [tool("protoc-gen-mypy")],
        input=request.SerializeToString(),
        capture_output=True,
        check=True,
    )
    response = plugin_pb2.CodeGeneratorResponse.FromString(run.stdout)
    shutil.rmtree(STUBS, ignore_errors=True)
    for module in SERVICE_MODULES:
        path = STUBS / (module.replace(".", "/") + ".pyi")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("from typing import Any\n\ndef __getattr__(name: str) -> Any: ...\n")
    for stub in response.file:
        if stub.content:
            path = STUBS / stub.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(stub.content)
    return len(response.file)


def main() -> None:
    print(f"generated {generate_api()} protos, {generate_envoy_stubs()} Envoy stubs")


if __name__ == "__main__":
    main()
