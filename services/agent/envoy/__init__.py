"""Envoy's life: its bootstrap, its process, its end."""
