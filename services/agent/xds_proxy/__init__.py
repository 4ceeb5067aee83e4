"""Envoy's xDS, passed on to Pilot."""
