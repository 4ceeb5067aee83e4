"""Settings: file below environment below flags; every mistake is one line that names its source."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from windward.settings import Seconds, SettingsError, load


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    store: Annotated[str, Meta(description="where state is kept")]
    port: Annotated[int, Meta(description="100% of a port")] = 1
    strict: Annotated[bool, Meta(description="whether")] = False
    grace: Annotated[Seconds, Meta(description="how long")] = Seconds(5)
    peers: Annotated[tuple[str, ...], Meta(description="who")] = ()
    labels: dict[str, str] = {}
    mode: Annotated[Literal["open", "closed"], Meta(description="which way")] = "closed"


def read(*argv: str, **environ: str) -> Sample:
    return load(
        Sample,
        program="windward-sample",
        environment_prefix="WINDWARD_SAMPLE_",
        argv=argv,
        environ=environ,
        description="A sample.",
        version="1.2.3",
    )


def problem(*argv: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(*argv, **environ)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("store: file\nport: 2\ngrace: 1m30s\n")
    got = read(
        "--settings", str(file), "--store", "flag",
        WINDWARD_SAMPLE_STORE="environment", WINDWARD_SAMPLE_PORT="3",
    )  # fmt: skip
    assert (got.store, got.port, got.grace) == ("flag", 3, 90.0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "store: here\npeers: [a, b]\nlabels: {app: shop}\nstrict: true\n"),
        ("a.json", '{"store":"here","peers":["a","b"],"labels":{"app":"shop"},"strict":true}'),
        ("a.toml", 'store="here"\npeers=["a","b"]\nstrict=true\n[labels]\napp="shop"\n'),
    ],
)
def test_the_same_file_in_three_notations(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    assert read("--settings", str(file)) == Sample(
        store="here", peers=("a", "b"), labels={"app": "shop"}, strict=True
    )


def test_a_key_of_the_file_may_be_spelt_as_its_flag(tmp_path):
    class Dashed(msgspec.Struct, frozen=True):
        mtls_address: str

    file = tmp_path / "a.yaml"
    file.write_text("mtls-address: here\n")
    got = load(
        Dashed, program="p", environment_prefix="P_", argv=["--settings", str(file)], environ={},
        description="",
    )  # fmt: skip
    assert got.mtls_address == "here"


def test_lists_and_maps_are_text_with_commas():
    got = read("--store", "s", "--peers", "a, b,,c", "--labels", "app=shop, tier = front=1")
    assert got.peers == ("a", "b", "c")
    assert got.labels == {"app": "shop", "tier": "front=1"}


def test_a_missing_setting_is_named_with_its_help():
    assert problem() == "--store is required: where state is kept"


@pytest.mark.parametrize(
    ("argv", "environ", "said"),
    [
        (["--port", "many"], {}, "--port:"),
        ([], {"WINDWARD_SAMPLE_PORT": "many"}, "WINDWARD_SAMPLE_PORT:"),
        (["--strict", "perhaps"], {}, "--strict:"),
        (["--mode", "ajar"], {}, "--mode:"),
        (["--labels", "app"], {}, "'app' is not a list of name=value"),
        (["--grace", "soon"], {}, "write it as 250ms, 5s, 1m30s or 24h"),
        (["--unknown", "1"], {}, "see windward-sample --help"),
        (["--por", "1"], {}, "see windward-sample --help"),
    ],
)
def test_what_is_wrong_is_said_with_where_it_stands(argv, environ, said):
    assert said in problem("--store", "s", *argv, **environ)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store: s\nnowhere: 1\n", "nowhere: there is no such setting"),
        ("- store\n", "must be a mapping"),
        ("store: [\n", "a.yaml: "),
        ("store: 5\n", "a.yaml: Expected `str`, got `int`"),
        ("store: s\nlabels: {app: 5}\n", "Expected `str`, got `int`"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, said):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    message = problem("--settings", str(file))
    assert said in message
    assert str(file) in message


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path):
    missing = tmp_path / "none.yaml"
    assert str(missing) in problem("--settings", str(missing))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert str(binary) in problem("--settings", str(binary))


def test_print_config_shows_what_is_in_force(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--store", "s", "--grace", "250ms", "--print-config")
    assert ended.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["store"], shown["grace"], shown["mode"]) == ("s", 0.25, "closed")


def test_help_names_every_setting_its_default_and_its_variable(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--help")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--store VALUE where state is kept (required)" in shown
    assert "100% of a port (default: 1)" in shown
    assert "(default: 5s)" in shown
    assert "WINDWARD_SAMPLE_NAME" in shown
    for name in ("peers", "labels", "mode", "settings", "print-config", "version"):
        assert f"--{name}" in shown


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        read("--version")
    assert ended.value.code == 0
    assert capsys.readouterr().out == "windward-sample 1.2.3\n"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("5s", 5), ("1m30s", 90), ("24h", 86400), ("2d", 172800), ("7", 7), ("1.5s", 1.5)],
)
def test_durations(text, seconds):
    assert Seconds.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 s", "5x", "1m30", "s5", "5s!"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="is not a duration"):
        Seconds.parse(text)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 999))
def test_parts_of_a_duration_add_up(minutes, seconds, milliseconds):
    parsed = Seconds.parse(f"{minutes}m{seconds}s{milliseconds}ms")
    assert parsed == pytest.approx(minutes * 60 + seconds + milliseconds / 1000)


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_one_line(text):
    try:
        got = read("--store", "s", f"--grace={text}", f"--peers={text}")
    except SettingsError as error:
        assert str(error).startswith("--grace:")
    else:
        assert isinstance(got.grace, float)
