"""Real databases: each test has its own, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import get_args

import pytest

from tests.sources.databases import Database, Kind, postgresql_database, sqlite_database
from tests.sources.postgres import Postgres, running

NewDatabase = Callable[[], Database]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with running() as postgres:
        yield postgres


@pytest.fixture(params=get_args(Kind))
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    """Make databases of one kind, each empty."""
    numbers = count()
    with ExitStack() as stack:
        if request.param == "sqlite":
            files = (tmp_path / f"{number}.sqlite3" for number in numbers)
            yield lambda: stack.enter_context(sqlite_database(next(files)))
        else:
            postgres = request.getfixturevalue("postgres")
            yield lambda: stack.enter_context(postgresql_database(postgres))


@pytest.fixture
def database(new_database: NewDatabase) -> Database:
    return new_database()
