"""Adapters: what answers a check. Each is a pure function of its parameters and one instance."""
