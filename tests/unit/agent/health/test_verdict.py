from hypothesis import given
from hypothesis import strategies as st

from services.agent.health.verdict import Timing, Verdict, timing
from windward.api.registry.v1 import registry_pb2


def test_defaults_are_kubernetes_own():
    assert timing(registry_pb2.ReadinessProbe()) == Timing(0, 1, 10)
    assert Verdict.of(registry_pb2.ReadinessProbe()) == Verdict(successes=1, failures=3)


def test_what_is_set_holds():
    probe = registry_pb2.ReadinessProbe(
        initial_delay_seconds=4,
        timeout_seconds=3,
        period_seconds=2,
        success_threshold=5,
        failure_threshold=6,
    )
    assert timing(probe) == Timing(4, 3, 2)
    assert Verdict.of(probe) == Verdict(successes=5, failures=6)


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_only_an_unbroken_run_of_the_threshold_changes_it(results, successes, failures):
    verdict = Verdict(successes, failures)
    for end, success in enumerate(results, 1):
        before = verdict
        verdict = verdict.after(success=success)
        wanted = successes if not before.healthy else failures
        run = results[max(0, end - wanted) : end]
        turned = len(run) == wanted and all(result != before.healthy for result in run)
        assert verdict.healthy == (before.healthy != turned)
