"""The file registry: what files say, what stays of a file that is broken, and what is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.pilot import metrics
from services.pilot.registry import files as module
from services.pilot.registry.files import FileRegistry, Folder, read_text
from services.pilot.registry.protocol import RegistryBatch

SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{name}.example.com]
  resolution: STATIC
  ports:
  - {{number: 80, name: http, protocol: {protocol}}}
"""
WORKLOAD = """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w1, namespace: shop}
spec: {address: 10.0.0.1, labels: {app: a}}
"""
RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r}
spec: {host: a.com}
"""


def service(name: str, protocol: str = "HTTP") -> str:
    return SERVICE.format(name=name, protocol=protocol)


def names(batch: RegistryBatch) -> set[str]:
    return {item.key.name for item in batch.upserts}


def gone(batch: RegistryBatch) -> set[str]:
    return {key.name for key in batch.removed}


def told(folder: Folder, **files: str) -> RegistryBatch:
    return folder.take(
        {f"{name}.yaml": read_text(text, f"{name}.yaml") for name, text in files.items()}
    )


def problems(folder: Folder) -> list[str]:
    return [f"{item.file}:{item.line}:{item.path}" for item in folder.problems]


def test_services_and_workloads_keep_their_namespace_and_are_named_for_files():
    batch = told(Folder(), a=service("one") + "---" + WORKLOAD)
    assert sorted(map(str, (item.key for item in batch.upserts))) == [
        "ServiceEntry/shop/file:one",
        "WorkloadEntry/shop/file:w1",
    ]


def test_only_differences_are_told():
    folder = Folder()
    told(folder, a=service("one"), b=service("two"))
    assert told(folder, a=service("one"), b=service("two")) == RegistryBatch()
    batch = told(folder, a=service("one", "TCP"))
    assert (names(batch), gone(batch)) == ({"file:one"}, {"file:two"})


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ("a: [", "a.yaml:2:"),
        (service("one", "SMTP"), "a.yaml:9:spec.ports[0].protocol"),
        (service("one").replace("hosts", "hostz"), "a.yaml:6:spec.hostz"),
        (service("one").replace("  resolution", "  resolution: DNS\n  resolution"), "a.yaml:8:spec.resolution"),
    ],
)  # fmt: skip
def test_what_is_broken_stays_as_it_was_and_is_reported_by_place(broken, where):
    folder = Folder()
    told(folder, a=service("one"), b=service("two"))
    assert told(folder, a=broken, b=service("two")) == RegistryBatch()
    assert any(item.startswith(where) for item in problems(folder)), problems(folder)
    assert gone(told(folder, b=service("two"))) == {"file:one"}
    assert not folder.problems


def test_one_broken_object_does_not_hold_back_the_others_of_its_file():
    folder = Folder()
    told(folder, a=service("one") + "---" + service("two") + "---" + service("three"))
    batch = told(folder, a=service("one", "SMTP") + "---" + service("two", "TCP"))
    assert (names(batch), gone(batch)) == ({"file:two"}, {"file:three"})
    # The broken one goes when it is taken out.
    assert gone(told(folder, a=service("two", "TCP"))) == {"file:one"}


def test_where_it_cannot_be_told_which_is_broken_all_stay():
    folder = Folder()
    told(folder, a=service("one") + "---" + service("two"))
    batch = told(folder, a=service("one", "TCP") + "---\nmetadata: {}\n")
    assert (names(batch), gone(batch)) == ({"file:one"}, set())


def test_a_broken_file_that_is_still_broken_keeps_what_it_had():
    folder = Folder()
    told(folder, a=service("one"))
    for _ in range(3):
        assert told(folder, a="a: [") == RegistryBatch()


@pytest.mark.parametrize("text", [RULE, "kind: 7", "[]", "a", "kind: {a: b}\nmetadata: {name: x}"])
def test_other_things_are_problems(text):
    folder = Folder()
    assert told(folder, a=text, b=service("two")).upserts
    assert len(folder.problems) == 1


def test_what_stands_twice_is_the_first_files():
    folder = Folder()
    batch = told(folder, b=service("one", "TCP"), a=service("one") + "---" + service("one", "TCP"))
    (item,) = batch.upserts
    assert item.spec.ports[0].protocol == "HTTP"
    assert problems(folder) == ["a.yaml:11:metadata.name", "b.yaml:1:metadata.name"]


GOOD = st.sampled_from([service("one"), service("two", "TCP"), service("two"), WORKLOAD, ""])
ANY = st.one_of(GOOD, st.sampled_from(["a: [", service("one", "SMTP"), "{}"]))
FILES = st.dictionaries(st.sampled_from("abc"), st.lists(ANY, max_size=3).map("---\n".join))


@given(st.lists(FILES, max_size=6), st.dictionaries(st.sampled_from("abc"), GOOD))
def test_whatever_was_there_good_files_are_what_is_told_in_the_end(history, last):
    folder = Folder()
    known: dict[Any, Any] = {}
    for files in [*history, last]:
        batch = told(folder, **files)
        for key in batch.removed:
            del known[key]
        known |= {item.key: item for item in batch.upserts}
    fresh = told(Folder(), **last)
    assert known == {item.key: item for item in fresh.upserts}


@given(FILES, FILES)
def test_what_still_stands_where_it_stood_is_not_removed(before, after):
    folder = Folder()
    told(folder, **before)
    for key in told(folder, **after).removed:
        word = "{name: " + key.name.removeprefix("file:")
        # A file that had it whole, and in which it stands still, broken or not, would keep it.
        assert not any(
            key in read_text(text, name).objects and word in after.get(name, "")
            for name, text in before.items()
        )


# ---- on disk ---------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    monkeypatch.setattr(module, "SETTLE_S", 0.02)


def write(path: Path, text: str) -> None:
    """As editors and deployments do it: whole, by rename."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.replace(path)


async def next_of(batches: AsyncGenerator[RegistryBatch, None]) -> RegistryBatch:
    async with asyncio.timeout(10):
        return await anext(batches)


async def test_a_folder_is_read_whole_and_followed(tmp_path: Path):
    write(tmp_path / "a.yaml", service("one"))
    (tmp_path / "notes.txt").write_text("not read")
    (tmp_path / ".hidden.yaml").write_text("not: read")
    (tmp_path / "folder.yaml").mkdir()
    async with aclosing(FileRegistry(tmp_path).batches()) as batches:
        first = await next_of(batches)
        assert (names(first), first.whole) == ({"file:one"}, True)
        write(tmp_path / "b.json", '{"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",'
              '"metadata": {"name": "w"}, "spec": {"address": "10.0.0.1"}}')  # fmt: skip
        assert names(await next_of(batches)) == {"file:w"}
        (tmp_path / "a.yaml").unlink()
        batch = await next_of(batches)
        assert (gone(batch), batch.whole) == ({"file:one"}, False)


async def test_an_empty_folder_is_an_answer(tmp_path: Path):
    async with aclosing(FileRegistry(tmp_path).batches()) as batches:
        assert await next_of(batches) == RegistryBatch(whole=True)


async def test_swapped_links_are_noticed(tmp_path: Path):
    """As Kubernetes mounts a ConfigMap: files are links through ``..data``, which is swapped."""
    for version, protocol in (("..v1", "HTTP"), ("..v2", "TCP")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(service("one", protocol))
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    async with aclosing(FileRegistry(tmp_path).batches()) as batches:
        await next_of(batches)
        (tmp_path / "..new").symlink_to("..v2")
        (tmp_path / "..new").replace(tmp_path / "..data")
        (item,) = (await next_of(batches)).upserts
        assert item.spec.ports[0].protocol == "TCP"


async def test_a_folder_that_is_a_swapped_link_is_noticed(tmp_path: Path):
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(service(version))
    (tmp_path / "current").symlink_to("v1")
    async with aclosing(FileRegistry(tmp_path / "current").batches()) as batches:
        assert names(await next_of(batches)) == {"file:v1"}
        (tmp_path / "new").symlink_to("v2")
        (tmp_path / "new").replace(tmp_path / "current")
        assert names(await next_of(batches)) == {"file:v2"}


async def test_a_single_file_that_is_away_keeps_what_it_said(tmp_path: Path):
    path = tmp_path / "services.yaml"
    write(path, service("one"))
    registry = FileRegistry(path)
    async with aclosing(registry.batches()) as batches:
        await next_of(batches)
        with capture_logs() as logs:
            path.unlink()
            following = asyncio.create_task(next_of(batches))
            async with asyncio.timeout(10):
                while not any(item["event"] == "registry.problem" for item in logs):
                    await asyncio.sleep(0.01)
            assert metrics.REGISTRY_UP.labels(registry.name)._value.get() == 0
        write(path, service("two"))
        batch = await following
        assert (names(batch), gone(batch)) == ({"file:two"}, {"file:one"})
    assert metrics.REGISTRY_UP.labels(registry.name)._value.get() == 1


async def test_a_path_that_comes_later_is_waited_for(tmp_path: Path):
    path = tmp_path / "later"
    async with aclosing(FileRegistry(path).batches()) as batches:
        first = asyncio.create_task(next_of(batches))
        await asyncio.sleep(0.05)
        assert not first.done()
        path.mkdir()
        assert (await first).whole


async def test_a_file_that_cannot_be_read_is_a_problem_of_its_own(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_BYTES", 1000)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "large.yaml").write_text("#" * 1001)
    (tmp_path / "nowhere.yaml").symlink_to("absent")
    write(tmp_path / "good.yaml", service("one"))
    registry = FileRegistry(tmp_path)
    with capture_logs() as logs:
        async with aclosing(registry.batches()) as batches:
            assert names(await next_of(batches)) == {"file:one"}
            write(tmp_path / "good.yaml", service("two"))
            await next_of(batches)
    said = sorted(Path(item["at"]).name for item in logs if item["event"] == "registry.problem")
    assert said == ["bytes.yaml:1", "large.yaml:1", "nowhere.yaml:1"]
    assert metrics.REGISTRY_PROBLEMS.labels(registry.name)._value.get() == 3


async def test_files_beyond_the_limit_are_named_and_not_read(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "MOST_FILES", 1)
    write(tmp_path / "a.yaml", service("one"))
    write(tmp_path / "b.yaml", service("two"))
    with capture_logs() as logs:
        async with aclosing(FileRegistry(tmp_path).batches()) as batches:
            assert names(await next_of(batches)) == {"file:one"}
    assert [item["event"] for item in logs] == ["registry.problem"]
