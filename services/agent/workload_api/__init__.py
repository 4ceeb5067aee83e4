"""SPIFFE Workload API: certificates, tokens and bundles for workloads that the kernel vouches for."""
