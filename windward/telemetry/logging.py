"""Logs: one JSON object a line on stderr; the event is a short constant, the data are keys. Secrets are never keys."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson

# structlog's renderers for terminals import rich where it is installed: 4 MB and a tenth of an agent's start, for
# services whose logs are JSON. While this one import runs, it is not installed.
_rich = "rich" not in sys.modules
if _rich:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402  the lines above are what it must not see

if _rich:
    del sys.modules["rich"]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def configure(service: str, level: str) -> None:
    """Set up structlog for this process. Raises KeyError for an unknown level."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Without locals: a frame's variables may hold a token or a key.
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")


def _dump(event: Any, **_: Any) -> bytes:
    return orjson.dumps(event, default=str)


def get_logger() -> Any:
    """A lazily configured logger: bind it at module level, use it anywhere."""
    return structlog.get_logger()
