from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.xds.load import decoded
from benchmarks.xds.population import Population

populations = st.builds(
    Population,
    services=st.integers(1, 60),
    streams=st.integers(1, 120),
    scopes=st.integers(1, 20),
    ports=st.integers(1, 5),
)


@given(populations)
def test_every_object_is_valid_and_has_a_name_of_its_own(population):
    keys = Counter(decoded(raw).key for raw in population.objects())
    assert max(keys.values()) == 1
    assert sum(key.kind == "ServiceEntry" for key in keys) == population.services


@given(populations)
def test_every_stream_is_an_endpoint_with_an_identity_of_its_own(population):
    members = population.members()
    entries = {
        (item.key.namespace, item.spec.service_account, item.spec.address)
        for item in map(decoded, population.objects())
        if item.key.kind == "WorkloadEntry"
    }
    wanted = {(m.namespace, m.service_account, m.address) for m in members}
    assert len(wanted) == population.streams
    assert wanted <= entries


def test_every_change_gives_a_new_address_that_no_sidecar_has():
    population = Population(1000, 2000)
    moved = {population.moved_address(service, 0) for service in range(1000)}
    moved |= {population.moved_address(7, change) for change in range(1, 20_001)}
    assert len(moved) == 21_000
    assert moved.isdisjoint(member.address for member in population.members())


def test_a_changed_route_is_another_object_of_the_same_name():
    population = Population(10, 10)
    before, after = (decoded(population.virtual_service(0, r)) for r in ("rev-0", "rev-1-"))
    assert before.key == after.key
    assert before.spec != after.spec
