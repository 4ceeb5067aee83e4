"""Interception: sending a workload's traffic through its Envoy."""
