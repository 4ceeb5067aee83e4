"""Citadel's gRPC services."""
