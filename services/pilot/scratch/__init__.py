"""A scratch Envoy: a real one that carries no traffic, asked whether it would take a resource."""
