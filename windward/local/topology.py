"""What a local mesh runs: applications, the identities they run under, and the gateway in front of them.

in   topology.yaml (see samples/bookshop/topology.yaml)
out  Topology: frozen, checked
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from windward.local.errors import LocalMeshError


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One application and the sidecar beside it."""

    name: str
    group: str
    """WorkloadGroup in the same namespace; its template supplies ports, labels and the service account."""
    service_account: str
    port: int
    """Where the application listens."""
    command: tuple[str, ...]
    """argv; ``{python}`` becomes the interpreter that runs the mesh."""
    namespace: str = "bookshop"
    environment: dict[str, str] = {}


class Gateway(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An Envoy at the edge: no application beside it."""

    name: str
    service_account: str
    port: int
    labels: dict[str, str]
    namespace: str = "bookshop"


class Topology(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    workloads: tuple[Workload, ...]
    gateway: Gateway | None = None
    config: str = ""
    """Folder of YAML files to apply, relative to the topology's own file; empty: nothing is applied."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every proxy's name: the workloads in order, then the gateway."""
        gateway = (self.gateway.name,) if self.gateway else ()
        return (*(workload.name for workload in self.workloads), *gateway)


def load_topology(path: Path) -> Topology:
    """Read and check a topology file. Raises LocalMeshError naming the file and the field."""
    import yaml

    try:
        topology = msgspec.convert(yaml.safe_load(path.read_text()), Topology)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise LocalMeshError(f"{path}: {error}") from error
    names = topology.names
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise LocalMeshError(
            f"{path}: more than one workload is named {', '.join(sorted(doubled))}"
        )
    return topology


def config_files(path: Path, topology: Topology) -> tuple[Path, ...]:
    """The YAML files that a topology applies, in name order."""
    if not topology.config:
        return ()
    folder = path.parent / topology.config
    return tuple(sorted(folder.glob("*.yaml")))


def host_lines(path: Path, topology: Topology) -> tuple[str, ...]:
    """Lines of /etc/hosts for the mesh's services: virtual address, then every name that a workload may use.

    Needed until the agent answers DNS itself.
    """
    import yaml

    lines = []
    for file in config_files(path, topology):
        for document in yaml.safe_load_all(file.read_text()):
            if not document or document.get("kind") != "ServiceEntry":
                continue
            spec = document["spec"]
            for host, address in zip(spec["hosts"], spec.get("addresses", ()), strict=False):
                lines.append(f"{address} {' '.join(host_aliases(host))}")
    return tuple(lines)


def host_aliases(host: str) -> tuple[str, ...]:
    """``reviews.bookshop.svc.cluster.local`` and its shorter forms, as a cluster's search domains would allow."""
    labels = host.split(".")
    if len(labels) < 3 or labels[2] != "svc":
        return (host,)
    return (host, ".".join(labels[:3]), ".".join(labels[:2]), labels[0])
