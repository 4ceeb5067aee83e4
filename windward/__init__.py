"""Windward: a service mesh's control plane. This package is what services, the CLI and users' programs share."""

__version__ = "0.1.0"
