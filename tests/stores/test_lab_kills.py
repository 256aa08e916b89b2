"""The only process is killed a hundred times, and goes on with what its file has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stores.kills import kill

pytestmark = pytest.mark.lab


@pytest.mark.timeout(300)
def test_nothing_is_lost_in_a_hundred_kills(tmp_path: Path) -> None:
    report = kill(tmp_path / "store.sqlite3", kills=100, seed=1)

    print(f"\n{report}")
    assert (report.lost, report.integrity) == (0, "ok")
