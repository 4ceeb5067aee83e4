"""What this Pilot is doing, as rows of JSON: over gRPC for programs and the CLI, over HTTP for people with curl."""
