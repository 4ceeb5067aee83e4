"""Secrets for Envoy over the agent's unix socket."""
