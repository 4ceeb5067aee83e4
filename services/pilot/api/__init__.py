"""Pilot's gRPC services beside xDS."""
