"""One ADS stream's state, without any I/O: requests and new resource sets in, responses out.

    DeltaStream / SotwStream:  request(...) -> refusals,  update(ResourceSet) -> None,  next() -> bytes | None

Rules, each a test:
- make before break: a type is sent when the types before it in PUSH_ORDER have nothing unacknowledged that was added;
  removals go last, in reverse order, and only when nothing that the client has refers to them;
- a new proxy's first LDS comes in one response, after every CDS chunk is ACKed;
- delta responses go in chunks; a chunk that is NACKed goes again as single resources, so that the nonce says which one
  is bad; state-of-the-world responses are bisected. What is bad is held at its last good version for this proxy until
  its bytes change, and what refers to a bad new resource is held with it;
- what was sent, and whether it was ACKed, is known for each resource;
- one response at a time is made, of the newest state: nothing is queued for a slow reader.
Source: xDS protocol, "ACK/NACK and resource type instance version", "Eventual consistency considerations".
"""

from __future__ import annotations

from windward.xds.core import HeldKey, Stream
from windward.xds.delta import CHUNK, NEW_CHUNK, DeltaRequest, DeltaStream
from windward.xds.knowledge import Refusal, TypeState
from windward.xds.sotw import SotwRequest, SotwStream

__all__ = [
    "CHUNK",
    "NEW_CHUNK",
    "DeltaRequest",
    "DeltaStream",
    "HeldKey",
    "Refusal",
    "SotwRequest",
    "SotwStream",
    "Stream",
    "TypeState",
]
