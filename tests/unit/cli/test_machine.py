import dataclasses
import subprocess

import pytest
import yaml

from services.agent.settings import Settings
from windward.cli.machine import ControlPlane, Machine, faults, files
from windward.settings import load

MACHINE = Machine(
    name="db-1",
    namespace="shop",
    service_account="db",
    group="db",
    labels={"app": "db"},
    address="10.0.0.9",
    locality="eu/west/a",
)
PLANE = ControlPlane(
    pilot=("10.0.0.1:15012", "pilot.example.com:15012"),
    citadel="10.0.0.1:8060",
    citadel_mtls="10.0.0.1:8061",
    trust_domain="cluster.local",
    roots_pem="-----BEGIN CERTIFICATE-----\n",
)


def made(**changes):
    return files(dataclasses.replace(MACHINE, **changes), PLANE, "secret")


def test_the_agent_reads_its_settings(tmp_path):
    (tmp_path / "agent.yaml").write_text(made()["agent.yaml"][0])
    settings = load(
        Settings,
        program="windward-agent",
        environment_prefix="WINDWARD_AGENT_",
        argv=["--settings", str(tmp_path / "agent.yaml")],
        environ={},
        description="",
    )
    assert settings.pilot_address == PLANE.pilot
    assert settings.citadel_mtls_address == PLANE.citadel_mtls
    assert (settings.namespace, settings.service_account) == ("shop", "db")
    assert (settings.workload_name, settings.workload_group) == ("db-1", "db")
    assert settings.labels == {"app": "db"}
    assert (settings.address, settings.locality) == ("10.0.0.9", "eu/west/a")
    assert settings.dns_capture
    assert not settings.probe_commands


def test_the_token_is_its_owners_alone_and_in_no_other_file():
    texts = made()
    assert texts["token"] == ("secret\n", 0o600)
    assert [name for name, (text, _) in texts.items() if "secret" in text] == ["token"]
    assert texts["start.sh"][1] == 0o755


@pytest.mark.parametrize("address", ["", "10.0.0.9"])
def test_the_script_is_a_script(address):
    text = made(address=address)["start.sh"][0]
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    assert ("ip -o route get" in text) == (address == "")
    assert "-d 22,15020,15021,15090" in text
    assert "address" not in yaml.safe_load(made(address="")["agent.yaml"][0])


def test_a_pilots_name_is_no_word_of_the_script():
    plane = dataclasses.replace(PLANE, pilot=("$(touch evil):1",))
    text = files(dataclasses.replace(MACHINE, address=""), plane, "secret")["start.sh"][0]
    assert "'$(touch evil)'" in text


@pytest.mark.parametrize(
    ("machine", "plane", "word"),
    [
        ({"name": "Db_1"}, {}, "NAME 'Db_1'"),
        ({"namespace": ""}, {}, "--namespace"),
        ({"service_account": "a b"}, {}, "--service-account"),
        ({"group": "-"}, {}, "--group"),
        ({"address": "localhost"}, {}, "--address"),
        ({"address": "0.0.0.0"}, {}, "--address"),
        ({"address": "fe80::1%eth0"}, {}, "--address"),
        ({"locality": "a/b/c/d"}, {}, "--locality"),
        ({"locality": "a//c"}, {}, "--locality"),
        ({}, {"pilot": ("pilot",)}, "--pilot"),
        ({}, {"pilot": ("127.0.0.1:15012",)}, "no other machine reaches that"),
        ({}, {"citadel": "localhost:8060"}, "no other machine reaches that"),
        ({}, {"citadel_mtls": "10.0.0.1:99999"}, "--citadel-mtls"),
    ],
)
def test_what_cannot_work_is_told_by_option(machine, plane, word):
    found = faults(dataclasses.replace(MACHINE, **machine), dataclasses.replace(PLANE, **plane))
    assert len(found) == 1
    assert word in found[0]


def test_what_can_work_has_no_fault():
    assert faults(MACHINE, PLANE) == []
    assert faults(dataclasses.replace(MACHINE, address="", locality="eu"), PLANE) == []
    near = dataclasses.replace(PLANE, pilot=("127.0.0.1:1",))
    assert faults(dataclasses.replace(MACHINE, address="127.4.0.1"), near) == []
