"""ADS over gRPC: streams, and who is connected."""
