"""A gateway and a catalog or two of the Bookshop: the small mesh of several tests and benchmarks, as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

CONFIGURATION = Path(__file__).resolve().parents[1] / "samples" / "bookshop" / "mesh"
GATEWAY = "gateway"
ONE, TWO = ("catalog-a",), ("catalog-a", "catalog-b")
_WAY_IN = """
config: mesh
gateway: {name: gateway, namespace: bookshop, service_account: gateway, labels: {app: gateway}, port: 8080}
workloads:
"""
_CATALOG = """
- name: {name}
  group: catalog-v1
  service_account: catalog
  port: 9080
  environment: {{BOOKSHOP_SERVICE: catalog, BOOKSHOP_VERSION: {version}}}
  command: ["{{python}}", -m, samples.bookshop.catalog]
"""
TO_CATALOG = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: storefront, namespace: bookshop}
spec:
  hosts: ["*"]
  gateways: [front-door]
  http:
  - route: [{destination: {host: catalog.bookshop.svc.cluster.local, port: {number: 9080}}}]
"""


def write_topology(folder: Path, catalogs: Iterable[str] = ONE) -> Path:
    """The topology's file, with the Bookshop's configuration; a catalog answers with the letter that its name ends with."""
    (folder / "mesh").symlink_to(CONFIGURATION)
    path = folder / "topology.yaml"
    path.write_text(
        _WAY_IN + "".join(_CATALOG.format(name=name, version=name[-1]) for name in catalogs)
    )
    return path
