"""Whether the application can serve: its WorkloadGroup's readiness probe, run by the agent beside it."""
