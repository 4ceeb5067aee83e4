"""Settings: file < environment < flags; one clear line for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from windward.settings import Seconds, SettingsError, load, stated


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


@pytest.mark.parametrize("text", ["", "s", "5 s", "5x", "1m30", "s5", "5s!"])
def test_what_is_no_duration(text: str):
    with pytest.raises(ValueError, match="write it as 250ms, 5s, 1m30s or 24h"):
        Seconds.parse(text)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 999))
def test_parts_of_a_duration_add_up(minutes: int, seconds: int, milliseconds: int):
    parsed = Seconds.parse(f"{minutes}m{seconds}s{milliseconds}ms")
    assert parsed == pytest.approx(minutes * 60 + seconds + milliseconds / 1000)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "store: here\nplaces: [a, b]\nlabels: {app: shop}\ncount: 2\n"),
        ("a.json", '{"store":"here","places":["a","b"],"labels":{"app":"shop"},"count":2}'),
        ("a.toml", 'store="here"\nplaces=["a","b"]\ncount=2\n[labels]\napp="shop"\n'),
    ],
)
def test_the_same_file_in_three_notations(tmp_path: Path, name: str, text: str):
    file = tmp_path / name
    file.write_text(text)
    wanted = Example(store="here", places=("a", "b"), labels={"app": "shop"}, count=2)
    assert read("--settings", str(file)) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- store\n", "must be a mapping"),
        ("store: [\n", "a.yaml: "),
        ("store: 5\n", "Expected `str`, got `int`"),
        ("store: s\nlabels: {app: 5}\n", "Expected `str`, got `int`"),
        ("store: s\ncount: many\n", "Expected `int`, got `str`"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, said: str):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as error:
        read("--settings", str(file))
    assert said in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bad_variable_is_named():
    with pytest.raises(SettingsError, match=r"^X_COUNT: "):
        read("--store", "s", X_COUNT="many")


def test_help_names_every_setting_with_its_default(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        read("--help")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--store VALUE where (required)" in shown
    assert "--ttl VALUE how long (default: 5s)" in shown
    assert "--labels VALUE labels (default: none)" in shown
    assert "in the environment as X_NAME" in shown


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_one_line(text: str):
    said = "--ttl: nothing wrong"
    try:
        read("--store", "s", f"--ttl={text}", f"--places={text}")
    except SettingsError as error:
        said = str(error)
    assert said.startswith("--ttl: ")


def test_one_setting_may_be_asked_for_before_the_others_are_read(tmp_path: Path):
    file = tmp_path / "s.yaml"
    file.write_text("store: s\nother-name: x\n")
    argv = ("--settings", str(file), "--store", "flag", "--whatever", "-h")
    assert stated("x", argv, "store") == ("flag", {"store": "s", "other_name": "x"})
    assert stated("x", ("--store=",), "store") == ("", {})
    assert stated("x", ("--mode", "b"), "store") == (None, {})
    with pytest.raises(SettingsError, match="expected one argument; see x --help"):
        stated("x", ("--store",), "store")
