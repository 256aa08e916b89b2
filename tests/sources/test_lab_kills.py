"""Kill -9 at random moments, with the outbox and without: the same kills."""

from __future__ import annotations

import pytest

from tests.sources.conftest import NewDatabase
from tests.sources.kills import kill

pytestmark = pytest.mark.lab

KILLS = 200


@pytest.mark.timeout(600)
@pytest.mark.parametrize("program", ["killed_django", "killed_sqlalchemy"])
def test_no_commit_is_lost_with_the_outbox(program: str, new_database: NewDatabase) -> None:
    protected, bare = (
        kill(program, new_database(), kills=KILLS, has_outbox=has_outbox, seed=1)
        for has_outbox in (True, False)
    )

    print(f"\n{protected}\n{bare}")
    assert (protected.lost, protected.remaining, protected.untrue) == (0, 0, 0)
    assert protected.left > 0
    assert bare.lost > 0
