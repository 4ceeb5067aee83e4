"""What can stop a local mesh, in words for users."""

from __future__ import annotations


class LocalMeshError(Exception):
    """One clear line: what is wrong, and what to do."""
