"""Builders, one module an Envoy concept: pure functions from the mesh's model to Envoy's messages, with Istio's names."""
