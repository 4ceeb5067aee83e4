from benchmarks.rows import Row
from benchmarks.xds.bars import MEASUREMENTS, rows_of
from benchmarks.xds.run import SCENARIOS


def test_a_bar_is_the_most_that_a_figure_may_be():
    assert Row("x", 5.0, 5).held
    assert not Row("x", 5.1, 5).held
    assert not Row("x", None, 5).held


def test_a_row_shows_figure_bar_and_why_there_is_none():
    assert str(Row("p50, ms", 1234.5, 300, "load 1/2")).split() == [
        "NOT", "HELD", "p50,", "ms", "1,234.5", "bar", "300", "load", "1/2",
    ]  # fmt: skip
    assert "-" in str(Row("p50, ms", None, 300, "no gcc")).split()


def test_every_measurement_names_a_scenario_and_figures_once():
    assert {item.scenario for item in MEASUREMENTS} <= set(SCENARIOS)
    assert len({item.key for item in MEASUREMENTS}) == len(MEASUREMENTS)
    names = [name for item in MEASUREMENTS for name, _, _ in item.rows]
    assert len(set(names)) == len(names)


def test_a_failed_scenario_leaves_rows_that_are_not_held():
    rows = rows_of(MEASUREMENTS[0], {}, "the fleet has ended")
    assert len(rows) == len(MEASUREMENTS[0].rows)
    assert not any(row.held for row in rows)
    assert all("the fleet has ended" in str(row) for row in rows)


def test_the_load_stands_beside_every_figure():
    figures = {"p50_ms": 1.0, "load_before": 2.5, "load_after": 3.5}
    row = rows_of(MEASUREMENTS[0], figures)[0]
    assert row.held
    assert "load 2.5/3.5" in str(row)
