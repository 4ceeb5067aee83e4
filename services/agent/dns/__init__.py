"""The workload's DNS: the mesh's names answered here, everything else by the machine's own resolvers."""
