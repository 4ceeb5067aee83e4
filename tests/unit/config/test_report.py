"""Paths, severities and oneofs of reports."""

from __future__ import annotations

import pytest

from windward.config.finding import Severity
from windward.config.report import Report


def test_paths_are_written_as_users_read_them() -> None:
    report = Report()
    assert report.at("spec", "http", 0, "route", 12).path == "spec.http[0].route[12]"
    assert report.at("metadata", "labels").key("a.b/c").path == 'metadata.labels["a.b/c"]'
    assert report.at("spec").at("hosts").at(1).path == "spec.hosts[1]"
    assert (report.at("").path, report.at("spec", "", "a").path) == ('[""]', 'spec[""].a')


def test_all_reports_of_an_object_share_their_findings() -> None:
    report = Report()
    report.at("a").warn("deprecated", "old", "use b")
    before = report.has_errors
    report.at("b", 0).error("required", "must be set")
    assert (before, report.has_errors) == (False, True)
    assert [(f.path, f.code, f.fix, f.severity) for f in report.findings] == [
        ("a", "deprecated", "use b", Severity.WARNING),
        ("b[0]", "required", "", Severity.ERROR),
    ]


@pytest.mark.parametrize(
    ("members", "required", "codes"),
    [
        ({"a": 1, "b": None}, False, []),
        ({"a": None, "b": None}, False, []),
        ({"a": None, "b": None}, True, ["required"]),
        ({"a": 0, "b": ""}, False, ["conflict"]),
        ({"a": 1, "b": 2, "c": None}, True, ["conflict"]),
    ],
)
def test_of_a_oneof_at_most_one_member_is_set(
    members: dict[str, object], required: bool, codes: list[str]
) -> None:
    report = Report("spec.x")
    report.one_of(members, required=required)
    assert [finding.code for finding in report.findings] == codes
