"""Listeners joined from their chains: the bytes of the whole, versions that say what differs."""

from __future__ import annotations

import pytest
from envoy.config.listener.v3 import listener_components_pb2 as parts
from envoy.config.listener.v3 import listener_pb2

from services.pilot.envoy import listener
from services.pilot.envoy.chains import spliceable, spliced

FRAMES = {
    "intercepted": listener.virtual_inbound(),
    "transparent": listener.virtual_inbound(transparent=True),
    "direct": listener.direct_inbound("127.7.0.2", 9080),
    "gateway": listener.secure_gateway("0.0.0.0", 443),
}
FRAMES["both families"] = listener.virtual_inbound()
listener.add_ipv6(FRAMES["both families"])


def chains(*names: str) -> list[parts.FilterChain]:
    return [
        parts.FilterChain(
            name=name, filter_chain_match=parts.FilterChainMatch(server_names=[f"{name}.com"])
        )
        for name in names
    ]


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c")])
def test_a_spliced_listener_has_the_bytes_of_the_whole(frame, names):
    made = spliced(frame, map(spliceable, chains(*names)))
    whole = listener_pb2.Listener()
    whole.CopyFrom(frame)
    whole.filter_chains.extend(chains(*names))
    assert made.body == whole.SerializeToString(deterministic=True)
    assert made.name == frame.name


def test_the_version_is_of_everything_in_it():
    made = [
        spliced(frame, map(spliceable, chains(*names))).version
        for frame in FRAMES.values()
        for names in ((), ("a",), ("b",), ("a", "b"), ("b", "a"))
    ]
    assert len(set(made)) == len(made)
    again = spliced(FRAMES["gateway"], map(spliceable, chains("a")))
    assert again == spliced(FRAMES["gateway"], map(spliceable, chains("a")))
