"""How a mesh's traffic is sent to its Envoys: said by one option, and refused where nothing is intercepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.shop import BOOKSHOP
from windward.local.addresses import Mode, plan_namespaces
from windward.local.errors import LocalMeshError
from windward.local.mesh import Mesh
from windward.local.parts import Options, Parts, Ports
from windward.local.topology import load_topology

PORTS = Ports(*range(1, 11))


def test_loopback_mode_refuses_tproxy_and_says_what_to_do(tmp_path: Path):
    with pytest.raises(LocalMeshError, match="--interception tproxy needs network namespaces"):
        Mesh(tmp_path, BOOKSHOP, mode=Mode.LOOPBACK, options=Options(interception="tproxy"))


@pytest.mark.parametrize("interception", ["redirect", "tproxy"])
def test_workloads_are_told_and_the_gateway_which_has_no_rules_keeps_an_envoy_without_rights(
    interception, tmp_path: Path
):
    topology = load_topology(BOOKSHOP)
    plan = plan_namespaces("abcdef", topology.names, ())
    parts = Parts(tmp_path, plan, PORTS, Options(interception=interception))
    assert topology.gateway is not None

    def told(command: tuple[str, ...]) -> str:
        return command[command.index("--interception") + 1]

    assert told(parts.sidecar(topology.workloads[0]).command) == interception
    assert told(parts.gateway(topology.gateway).command) == "redirect"
