"""What every service does around its own work: settings, logs, traces, signals, one clear line when it cannot go on.

    argv, environment -> settings -> serve(settings, lifecycle) until SIGTERM -> drained -> exit status

Exit status: 0 stopped on request, 1 a FatalError (its line on stderr), 2 bad settings.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from windward import __version__
from windward.settings import SettingsError, load


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of every service, beside its own."""

    log_level: Annotated[str, Meta(description="debug, info, warning or error")] = "info"
    ports_file: Annotated[str, Meta(description="write the ports in use there, as JSON")] = ""
    otlp_endpoint: Annotated[str, Meta(description="OTLP/HTTP endpoint for traces")] = ""


S = TypeVar("S", bound=ProcessSettings)


class FatalError(Exception):
    """The process cannot go on, and waiting would not help: one line saying what to do."""


class Lifecycle:
    """What a service and its surroundings tell one another."""

    def __init__(self, ports_file: str = "") -> None:
        self.stopping = asyncio.Event()
        """Set on SIGTERM and SIGINT: finish what is under way, take nothing new, return."""
        # Absolute from the start: a service may change its folder.
        self._ports_file = Path(ports_file).absolute() if ports_file else None

    def listening(self, **ports: int) -> None:
        """Tell the ports that are really in use, for those who asked by ``--ports-file``."""
        if self._ports_file is None:
            return
        temporary = self._ports_file.with_name(self._ports_file.name + ".new")
        try:
            temporary.write_bytes(msgspec.json.encode(ports))
            temporary.replace(self._ports_file)
        except OSError as error:
            raise FatalError(f"--ports-file {self._ports_file}: {error.strerror}") from error


def run(
    program: str,
    settings_type: type[S],
    serve: Callable[[S, Lifecycle], Awaitable[None]],
    *,
    description: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a service to its end; returns the exit status."""
    service = program.removeprefix("windward-")
    try:
        settings = load(
            settings_type,
            program=program,
            environment_prefix=f"WINDWARD_{service.upper()}_",
            argv=sys.argv[1:] if argv is None else argv,
            environ=os.environ,
            description=description,
            version=__version__,
        )
        return asyncio.run(_run(service, settings, serve))
    except SettingsError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return 2
    except FatalError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return 1
    except BaseExceptionGroup as group:
        fatal, other = group.split(FatalError)
        if fatal is None or other is not None:
            raise
        sys.stderr.write(f"{program}: {_first(fatal)}\n")
        return 1


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _run(service: str, settings: S, serve: Callable[[S, Lifecycle], Awaitable[None]]) -> int:
    from windward.telemetry import logging, tracing

    level = settings.log_level
    if level not in logging.LEVELS:
        raise SettingsError(f"--log-level {level}: one of {', '.join(logging.LEVELS)}")
    logging.configure(service, level)
    endpoint = settings.otlp_endpoint or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    flush_traces = tracing.configure(f"windward-{service}", endpoint)
    lifecycle = Lifecycle(settings.ports_file)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lifecycle.stopping.set)
    try:
        await serve(settings, lifecycle)
    finally:
        await asyncio.to_thread(flush_traces)
    return 0
