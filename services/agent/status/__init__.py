"""What the agent tells probes and scrapers."""
