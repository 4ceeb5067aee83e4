"""Onboarding: what is asked of Pilot and Citadel, and what lies in the folder then."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from tests.unit.cli.test_machine import MACHINE
from windward.cli import workloads
from windward.cli.failures import UserError
from windward.client.context import CitadelAddresses, Context, save


class NotFound(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.NOT_FOUND


class Pilot:
    """Holds at most the group of the test."""

    def __init__(self, account: str | None) -> None:
        self.account = account
        self.applied: list[dict[str, Any]] = []
        self.revision = 1

    def Get(self, request: Any, **_: Any) -> Any:  # noqa: N802  the wire's name
        if self.account is None:
            raise NotFound
        spec = {"template": {"serviceAccount": self.account}}
        return SimpleNamespace(json=json.dumps({"spec": spec}))

    def Apply(self, request: Any, **_: Any) -> Any:  # noqa: N802  the wire's name
        self.applied.append(json.loads(request.objects[0].json))
        finding = SimpleNamespace(path="spec", message="refused")
        return SimpleNamespace(revision=self.revision, findings=[finding])


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Runs the command; gives it a Pilot and remembers tokens asked for."""
    (tmp_path / "roots.pem").write_text("roots\n")
    context = Context(
        pilot="10.0.0.1:1",
        citadel=CitadelAddresses("10.0.0.1:2", "10.0.0.1:3"),
        trust_domain="cluster.local",
        trust_bundle_file="roots.pem",
        certificate_file="",
        key_file="",
    )
    save(context, tmp_path / "context.json")
    tokens: list[Any] = []

    def create(request: Any, **_: Any) -> Any:
        tokens.append(request)
        return SimpleNamespace(token="wwjt_secret")

    def run(pilot: Pilot, machine=MACHINE, ttl="10m") -> Path:
        @contextmanager
        def the_pilot(_):
            yield pilot

        @contextmanager
        def the_citadel(_):
            yield SimpleNamespace(CreateJoinToken=create)

        monkeypatch.setattr(workloads, "pilot", the_pilot)
        monkeypatch.setattr(workloads, "citadel", the_citadel)
        folder: Path = tmp_path / "db-1"
        workloads.onboard(
            machine,
            folder,
            ttl,
            pilots=[],
            citadel_tls=None,
            citadel_mtls=None,
            context=str(tmp_path / "context.json"),
        )
        return folder

    return SimpleNamespace(run=run, tokens=tokens, folder=tmp_path / "db-1")


def test_the_folder_holds_everything_and_the_token_is_private(asked, capsys):
    folder = asked.run(Pilot("db"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {
        "agent.yaml": 0o644,
        "root-cert.pem": 0o644,
        "token": 0o600,
        "start.sh": 0o755,
        "windward-agent.service": 0o644,
    }
    assert (folder / "token").read_text() == "wwjt_secret\n"
    assert (folder / "root-cert.pem").read_text() == "roots\n"
    said = capsys.readouterr()
    assert said.out == f"{folder}\n"
    assert "wwjt_" not in said.err
    (request,) = asked.tokens
    assert request.identity == "spiffe://cluster.local/ns/shop/sa/db"
    assert (request.ttl.seconds, request.max_uses) == (600, 1)


def test_a_group_that_is_not_there_is_made(asked):
    pilot = Pilot(None)
    asked.run(pilot)
    (made,) = pilot.applied
    assert made["kind"] == "WorkloadGroup"
    assert made["metadata"] == {"name": "db", "namespace": "shop"}
    assert made["spec"]["template"] == {"serviceAccount": "db"}
    assert made["spec"]["metadata"] == {"labels": {"app": "db"}}


def test_a_group_of_another_account_is_refused_and_nothing_is_made(asked):
    with pytest.raises(UserError, match="runs as other, not as db"):
        asked.run(Pilot("other"))
    assert asked.tokens == []
    assert not asked.folder.exists()


def test_a_group_that_pilot_refuses_is_told(asked):
    pilot = Pilot(None)
    pilot.revision = 0
    with pytest.raises(UserError, match="spec: refused"):
        asked.run(pilot)
    assert asked.tokens == []


def test_a_folder_in_use_is_left_alone(asked):
    (asked.folder / "state").mkdir(parents=True)
    with pytest.raises(UserError, match="--output"):
        asked.run(Pilot("db"))
    assert [path.name for path in asked.folder.iterdir()] == ["state"]


def test_a_second_time_replaces_the_token(asked):
    folder = asked.run(Pilot("db"))
    (folder / "token").write_text("old")
    asked.run(Pilot("db"))
    assert (folder / "token").read_text() == "wwjt_secret\n"


@pytest.mark.parametrize("text", ["app", "=x", "a=b,c"])
def test_labels_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="--labels"):
        workloads.parse_labels(text)


def test_labels():
    assert workloads.parse_labels(" app=db, version=v1,") == {"app": "db", "version": "v1"}


def test_a_bad_ttl_is_told(asked):
    with pytest.raises(UserError):
        asked.run(Pilot("db"), ttl="soon")
