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
