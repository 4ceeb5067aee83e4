"""Short questions to the application and to Envoy: bounded in time and size, from an address of one's choice."""
