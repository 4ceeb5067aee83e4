"""Where everything lies: one root, areas that do not overlap, history that sorts as numbers."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from windward.store import keys
from windward.store.errors import Compacted, Conflict, StoreError


def test_areas_lie_below_the_root_and_never_below_one_another():
    areas = (keys.CONFIG, keys.HISTORY, keys.STAGING, keys.ENDPOINTS, keys.ENDPOINT_LEASES, keys.CA)
    assert all(area.startswith(keys.ROOT) and area.endswith("/") for area in areas)
    assert not any(one.startswith(other) for one, other in permutations(areas, 2))


def test_one_watch_sees_the_configuration_and_its_pointer_and_no_other_area():
    assert keys.CONFIG.startswith(keys.CONFIG_AREA)
    assert keys.APPLYING.startswith(keys.CONFIG_AREA)
    assert keys.CONFIG_MARK.startswith(keys.CONFIG_AREA)
    assert not any(key.startswith(keys.CONFIG) for key in (keys.APPLYING, keys.CONFIG_MARK))
    others = (keys.HISTORY, keys.STAGING, keys.ENDPOINTS, keys.CA)
    assert not any(area.startswith(keys.CONFIG_AREA) for area in others)


def test_paths():
    assert keys.config_key("g", "K", "ns", "n") == "/windward/v1/config/g/K/ns/n"
    assert (
        keys.history_key("g", "K", "ns", "n", 1_700_000_000_000, 7)
        == "/windward/v1/history/g/K/ns/n/001700000000000-000000000007"
    )
    assert keys.endpoint_key("ns", "n") == "/windward/v1/endpoints/ns/n"
    assert keys.endpoint_lease_key("ns", "n") == "/windward/v1/endpoint-leases/ns/n"


def test_one_watch_sees_registrations_whole_and_nothing_else():
    areas = (keys.CONFIG, keys.HISTORY, keys.STAGING, keys.ENDPOINTS, keys.ENDPOINT_LEASES, keys.CA)
    below = [area for area in areas if area.startswith(keys.REGISTRATIONS)]
    assert below == [keys.ENDPOINTS, keys.ENDPOINT_LEASES]
    assert keys.REGISTRATIONS_MARK.startswith(keys.REGISTRATIONS)
    assert not any(keys.REGISTRATIONS_MARK.startswith(area) for area in below)


@given(st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1))
def test_generations_sort_as_numbers(one: int, other: int):
    paths = [keys.history_key("g", "K", "ns", "n", 1, generation) for generation in (one, other)]
    assert (paths[0] < paths[1]) == (one < other)


def test_errors_are_all_of_the_store_and_say_where():
    assert issubclass(Conflict, StoreError)
    assert Compacted(17).revision == 17
    assert "17" in str(Compacted(17))
