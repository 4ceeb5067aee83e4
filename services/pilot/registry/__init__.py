"""Where services and workloads come from."""
