"""Notes what became of each test: a plugin for the runs of other people's test suites.

With `FOREIGN_APP`, the file of an application, this is wrapped first. Without, nothing of ours is
imported.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

_outcomes: dict[str, str] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    if "FOREIGN_APP" in os.environ:
        import foreign_wrapping

        foreign_wrapping.begin(Path(os.environ["FOREIGN_APP"]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the outcome of the phase that decides: one that fails, or is skipped, or the call."""
    if report.when == "call" or report.outcome != "passed":
        expected = "x" if hasattr(report, "wasxfail") else ""
        _outcomes[report.nodeid] = f"{expected}{report.outcome}"


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _outcomes[report.nodeid] = "not collected"


def pytest_unconfigure() -> None:
    found: dict[str, Any] = {"outcomes": _outcomes}
    if "FOREIGN_APP" in os.environ:
        import foreign_wrapping

        found |= foreign_wrapping.end()
    Path(os.environ["FOREIGN_REPORT"]).write_text(json.dumps(found))
