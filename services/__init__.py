"""Windward's services: each a process of its own that shares only the library ``windward`` with the others."""

import os

# Read when grpc is imported, so before any service is: grpc's core writes plain lines to stderr, among the JSON of the
# log, about things that it raises as well.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
