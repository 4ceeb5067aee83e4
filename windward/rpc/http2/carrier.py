"""What carries a connection's bytes, as the connection sees it: a socket, what a test keeps, or nothing any more."""

from __future__ import annotations

from typing import Final, Protocol


class Transport(Protocol):
    """Where a connection's bytes go."""

    peer: str
    full: bool
    """What is written now would wait in memory: better made later. ``Connection.drained`` is called when it is not any more."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """After what was written has gone."""

    def auth_context(self) -> dict[str, list[bytes]]: ...


class _Nowhere:
    """The transport of a connection that is over: its own must not be kept by it, nor by its calls."""

    peer = ""
    full = False

    def write(self, data: bytes) -> None:
        """Nobody hears it."""

    def close(self) -> None:
        """It is."""

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}


NOWHERE: Final = _Nowhere()
