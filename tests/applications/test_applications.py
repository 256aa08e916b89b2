"""Each write through an application's own views purges the pages that it changed.

The tables with what it purged besides are printed by `-s`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.applications.harness import Report, table

# Each application is a process or two, on a machine that does other things too.
pytestmark = pytest.mark.timeout(600)

Reports = Mapping[str, Report]
"""By what tells an application's lists apart: nothing but their tables, or scopes."""

WRITTEN_HERE = ("blog", "shop")
PUBLISHED = ("oscar_shop", "puput_blog")
BOTH = ("tables", "scopes")


def run(applications: Iterable[str], by: Iterable[str] = BOTH) -> dict[str, Reports]:
    """Return what became of the applications' pages, and print it."""
    named = list(applications)
    # As many at once as there are processors.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = {name: {each: pool.submit(_report, name, each) for each in by} for name in named}
    reports = {name: {b: each.result() for b, each in r.items()} for name, r in found.items()}
    for name, each in reports.items():
        print(table(name, each))
    return dict(reports)


def _report(name: str, by: str) -> Report:
    command = [sys.executable, "-m", "tests.applications", name, by]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Report.read(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def all_reports() -> Mapping[str, Reports]:
    return {**run(WRITTEN_HERE), **run(PUBLISHED, ["scopes"])}


@pytest.fixture(params=[*WRITTEN_HERE, *PUBLISHED])
def reports(request: pytest.FixtureRequest, all_reports: Mapping[str, Reports]) -> Reports:
    return all_reports[request.param]


def test_no_page_is_stale(reports: Reports) -> None:
    stale = {w.name: w.stale for r in reports.values() for w in r.writes if w.stale}

    assert stale == {}


def test_every_page_has_keys_of_the_tables_it_reads(reports: Reports) -> None:
    assert [report.untagged for report in reports.values() if report.untagged] == []


def test_the_edge_has_nothing_to_complain_of(reports: Reports) -> None:
    assert [report.logged for report in reports.values() if report.logged] == []


def test_the_writes_change_pages_and_leave_others(reports: Reports) -> None:
    assert all(0 < report.changed <= report.purged < report.pages for report in reports.values())


@pytest.mark.parametrize("name", WRITTEN_HERE)
def test_scopes_purge_less(all_reports: Mapping[str, Reports], name: str) -> None:
    reports = all_reports[name]

    assert reports["scopes"].over_purged < reports["tables"].over_purged


@pytest.mark.lab
def test_scopes_purge_less_of_what_is_published() -> None:
    for reports in run(PUBLISHED).values():
        assert not any(write.stale for report in reports.values() for write in report.writes)
        assert reports["scopes"].over_purged < reports["tables"].over_purged
