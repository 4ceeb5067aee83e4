"""Settings of a service: one frozen Struct, filled from a file < the environment < flags.

    --settings FILE (TOML, YAML or JSON)  <  WINDWARD_PILOT_STORE=...  <  --store ...   ->   Settings

A field's name is its flag (``mtls_address`` -> ``--mtls-address``), its environment variable and its key in the file;
its ``Meta(description=...)`` is its help. Unknown keys, wrong types and missing values are one clear line each.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import msgspec

S = TypeVar("S", bound=msgspec.Struct)

DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Seconds(float):
    """A duration in seconds, written ``250ms``, ``5s``, ``1m30s``, ``24h``, or as a bare number of seconds."""

    @classmethod
    def parse(cls, text: str) -> Seconds:
        parts = DURATION.findall(text)
        if text.strip().lower() in {"nan", "inf", "-inf"} or text.startswith("-"):
            raise ValueError(f"{text!r} is not a duration: write it as 250ms, 5s, 1m30s or 24h")
        if parts and "".join(number + unit for number, unit in parts) == text:
            return cls(sum(float(number) * UNIT_S[unit] for number, unit in parts))
        try:
            return cls(float(text))
        except ValueError:
            raise ValueError(
                f"{text!r} is not a duration: write it as 250ms, 5s, 1m30s or 24h"
            ) from None


class SettingsError(Exception):
    """One line: which setting, where it came from, what is wrong."""


def as_flags(settings: msgspec.Struct) -> tuple[str, ...]:
    """The command line that gives these settings; what is as by default is left out. For text, numbers, bools and tuples."""
    made = []
    for name, field in _fields(type(settings)).items():
        value = getattr(settings, name)
        if not field.required and value == field.default:
            continue
        if isinstance(value, tuple):
            text = ",".join(map(str, value))
        elif isinstance(value, bool):
            text = str(value).lower()
        else:
            text = str(float(value)) if isinstance(value, Seconds) else str(value)
        made.append(f"--{name.replace('_', '-')}={text}")
    return tuple(made)


def load(
    settings_type: type[S],
    *,
    program: str,
    environment_prefix: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
    description: str,
    version: str = "",
) -> S:
    """Read the settings. Handles --help, --version and --print-config itself (SystemExit); raises SettingsError."""
    fields = _fields(settings_type)
    parser = _parser(fields, program, environment_prefix, description, version)
    flags = parser.parse_args(list(argv))
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    if flags.settings:
        for key, value in _read_file(Path(flags.settings)).items():
            name = key.replace("-", "_")
            if name not in fields:
                raise SettingsError(f"{flags.settings}: {key}: there is no such setting")
            values[name], sources[name] = value, flags.settings
    for name in fields:
        variable = environment_prefix + name.upper()
        if variable in environ:
            values[name], sources[name] = environ[variable], variable
        flag = getattr(flags, name)
        if flag is not None:
            values[name], sources[name] = flag, "--" + name.replace("_", "-")
    settings = _build(settings_type, fields, values, sources)
    if flags.print_config:
        sys.stdout.write(
            msgspec.json.format(msgspec.json.encode(settings, enc_hook=float), indent=2).decode()
            + "\n"
        )
        raise SystemExit(0)
    return settings


def stated(program: str, argv: Sequence[str], name: str) -> tuple[str | None, Mapping[str, Any]]:
    """Before ``load``: a setting's flag, if it is there, and what the settings file says of any. Raises SettingsError.

    For a setting that others are made of. What else the command line holds is left to ``load``.
    """
    parser = _Parser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--" + name.replace("_", "-"), dest="flag")
    found, _ = parser.parse_known_args(list(argv))
    content = _read_file(Path(found.settings)) if found.settings else {}
    return found.flag, {key.replace("-", "_"): value for key, value in content.items()}


class _Field(msgspec.Struct, frozen=True):
    type: Any
    description: str
    required: bool
    default: Any


def _fields(settings_type: type[msgspec.Struct]) -> dict[str, _Field]:
    hints = get_type_hints(settings_type, include_extras=True)
    found = {}
    for info in msgspec.structs.fields(settings_type):
        hint, description = hints[info.name], ""
        if get_origin(hint) is Annotated:
            plain, *notes = get_args(hint)
            # msgspec checks a bound on a number; on Seconds and containers a Meta is only a description.
            hint = hint if plain in {int, float} else plain
            description = (
                next((note.description for note in notes if isinstance(note, msgspec.Meta)), "")
                or ""
            )
        default = (
            info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()
        )
        found[info.name] = _Field(hint, description, default is msgspec.NODEFAULT, default)
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; see {self.prog} --help")


def _parser(
    fields: Mapping[str, _Field], program: str, prefix: str, description: str, version: str
) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description=description,
        epilog=f"Every flag may also stand in the settings file, or in the environment as {prefix}NAME.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{program} {version}")
    parser.add_argument("--settings", metavar="FILE", help="settings file: TOML, YAML or JSON")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings in force and exit"
    )
    for name, field in fields.items():
        default = "required" if field.required else f"default: {_show(field.default)}"
        text = f"{field.description} ({default})".replace("%", "%%")
        parser.add_argument("--" + name.replace("_", "-"), metavar="VALUE", help=text)
    return parser


def _show(value: object) -> str:
    if value is None or (isinstance(value, (str, tuple, dict)) and not value):
        return "none"
    return f"{value:g}s" if isinstance(value, Seconds) else str(value)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    try:
        content = _parse_text(path.suffix, text)
    except Exception as error:
        raise SettingsError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: must be a mapping of settings")
    return {str(key): value for key, value in content.items()}


def _parse_text(suffix: str, text: str) -> object:
    if suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    if suffix == ".json":
        return msgspec.json.decode(text)
    import yaml

    return yaml.safe_load(text) or {}


def _build(
    settings_type: type[S],
    fields: Mapping[str, _Field],
    values: Mapping[str, Any],
    sources: Mapping[str, str],
) -> S:
    converted: dict[str, Any] = {}
    for name, value in values.items():
        try:
            converted[name] = _convert(value, fields[name].type)
        except (ValueError, msgspec.ValidationError) as error:
            raise SettingsError(f"{sources[name]}: {error}") from error
    for name, field in fields.items():
        if field.required and name not in converted:
            flag = "--" + name.replace("_", "-")
            raise SettingsError(f"{flag} is required: {field.description}")
    try:
        return settings_type(**converted)
    except (ValueError, TypeError) as error:
        raise SettingsError(str(error)) from error


def _convert(value: Any, wanted: Any) -> Any:
    """Text (or a value of a file) to the field's type: text, number, bool, Seconds, tuples of text, name=value maps."""
    if wanted is Seconds:
        return Seconds.parse(str(value))
    if isinstance(value, str):
        if get_origin(wanted) is tuple:
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif get_origin(wanted) is dict:
            pairs = [part.partition("=") for part in value.split(",") if part.strip()]
            if not all(equals for _, equals, _ in pairs):
                raise ValueError(f"{value!r} is not a list of name=value")
            value = {key.strip(): text.strip() for key, _, text in pairs}
    return msgspec.convert(value, wanted, strict=not isinstance(value, str))
