from benchmarks.xds.table import lines, merged


def run(p50, faults=0, **more):
    return {"scenario": "xds-endpoint", "services": 10, "p50_ms": p50, "faults": faults, **more}


def test_several_runs_are_one_object_of_medians():
    result = merged([run(1.0), run(9.0), run(2.0)])
    assert result["p50_ms"] == 2.0
    assert result["p50_ms_all"] == "1.0 9.0 2.0"
    assert result["runs"] == 3
    assert result["services"] == 10


def test_a_fault_in_one_run_is_a_fault():
    assert merged([run(1.0), run(1.0, faults=3), run(1.0)])["faults"] == 3


def test_words_and_what_is_not_known_stay_as_they_are():
    result = merged([run(1.0, loop_hold_ms=None, seen=""), run(1.0, loop_hold_ms=None, seen="x")])
    assert result["loop_hold_ms"] is None
    assert result["seen"] == "x"


def test_a_line_a_figure():
    assert lines({"p50_ms": 1234.5, "bytes_sent": 1000000, "loop_hold_ms": None}) == [
        "p50_ms                       1,234.5",
        "bytes_sent                   1,000,000",
        "loop_hold_ms                 -",
    ]
