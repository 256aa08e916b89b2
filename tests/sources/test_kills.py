"""A process is killed a few times, and what it committed is delivered all the same.

`test_lab_kills.py` does it by the hundred.
"""

from __future__ import annotations

import pytest

from tests.sources.databases import Database
from tests.sources.kills import kill


@pytest.mark.parametrize("program", ["killed_django", "killed_sqlalchemy"])
def test_no_commit_is_lost_with_the_outbox(program: str, database: Database) -> None:
    report = kill(program, database, kills=5, has_outbox=True, seed=1)

    assert (report.lost, report.remaining, report.untrue) == (0, 0, 0)
    assert report.commits > 0
