"""Settings: file < environment < flags; one clear line for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from windward.settings import Seconds, SettingsError, load


class Example(msgspec.Struct, frozen=True, kw_only=True):
    store: Annotated[str, Meta(description="where")]
    ttl: Annotated[Seconds, Meta(description="how long")] = Seconds(5)
    mode: Annotated[Literal["a", "b"], Meta(description="which")] = "a"
    labels: Annotated[dict[str, str], Meta(description="labels")] = {}
    places: Annotated[tuple[str, ...], Meta(description="places")] = ()
    count: Annotated[int, Meta(description="how many", ge=1)] = 1


def read(*argv: str, **environ: str) -> Example:
    return load(
        Example,
        program="x",
        environment_prefix="X_",
        argv=argv,
        environ=environ,
        description="an example",
    )


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path):
    file = tmp_path / "s.toml"
    file.write_text('store = "file"\nttl = "1m"\nmode = "b"\n')
    made = read("--settings", str(file), "--store", "flag", X_STORE="environment", X_TTL="250ms")
    assert (made.store, made.ttl, made.mode) == ("flag", 0.25, "b")


def test_lists_and_maps_are_written_with_commas():
    made = read(
        "--store", "s", "--labels", "app=a, version=v1", "--places", "h1:1,h2:2", "--count", "7"
    )
    assert (made.labels, made.places, made.count) == (
        {"app": "a", "version": "v1"},
        ("h1:1", "h2:2"),
        7,
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "--store is required: where"),
        (("--store", "s", "--ttl", "soon"), "--ttl: 'soon' is not a duration"),
        (("--store", "s", "--mode", "c"), "--mode: "),
        (("--store", "s", "--count", "none"), "--count: "),
        (("--store", "s", "--count", "0"), "--count: "),
        (("--store", "s", "--labels", "app"), "--labels: 'app' is not a list of name=value"),
        (("--stroe", "s"), "unrecognized arguments"),
        (("--settings", "/nowhere.toml"), "/nowhere.toml"),
    ],
)
def test_what_is_wrong_is_one_line(argv: tuple[str, ...], said: str):
    with pytest.raises(SettingsError) as error:
        read(*argv)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_key_of_a_file_is_refused(tmp_path: Path):
    file = tmp_path / "s.yaml"
    file.write_text("store: s\nstroe: x\n")
    with pytest.raises(SettingsError, match="stroe: there is no such setting"):
        read("--settings", str(file))


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("1m30s", 90), ("24h", 86_400), ("5", 5), ("0.5s", 0.5)]
)
def test_durations(text: str, seconds: float):
    assert Seconds.parse(text) == seconds
