"""The databases of the tests: empty, apart, and with savepoints that mean what SQL says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text

from tests.sources.conftest import NewDatabase
from tests.sources.databases import Database
from tests.sources.postgres import Postgres, running


def test_the_server_answers(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        found = connection.execute("select current_user").fetchall()

    assert found == [("postgres",)]


def test_the_server_is_gone_afterwards() -> None:
    with running() as postgres, postgres.connect() as connection:
        [(folder,)] = connection.execute("show data_directory").fetchall()
        pid = Path(folder, "postmaster.pid").read_text().split()[0]
        assert Path("/proc", pid).exists()

    assert not Path("/proc", pid).exists()
    assert not Path(folder).exists()


def test_two_servers_run_at_once(postgres: Postgres) -> None:
    with running() as other, other.connect() as connection:
        connection.execute("create table counter (id integer)")
        with postgres.connect() as first:
            found = first.execute("select to_regclass('counter')").fetchall()

    assert found == [(None,)]


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_without_postgresql_a_test_is_skipped_but_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setattr("tests.sources.postgres.DEBIAN", Path("/nowhere"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CI", ci)

    with pytest.raises(outcome, match="apt-get install postgresql"), running():
        pass


def test_databases_are_apart(new_database: NewDatabase) -> None:
    one, other = new_database(), new_database()
    with one.engine.begin() as connection:
        create_counters(connection)

    assert inspect(one.engine).get_table_names() == ["counter"]
    assert inspect(other.engine).get_table_names() == []


def test_a_released_savepoint_ends_with_its_transaction(database: Database) -> None:
    with database.engine.begin() as connection:
        create_counters(connection)
    with database.engine.connect() as connection:
        with connection.begin_nested():
            add(connection, 1)
        connection.rollback()
        found = counters(connection)

    assert found == []


def test_a_rolled_back_savepoint_takes_only_its_own(database: Database) -> None:
    with database.engine.begin() as connection:
        create_counters(connection)
        add(connection, 1)
        savepoint = connection.begin_nested()
        add(connection, 2)
        savepoint.rollback()
        add(connection, 3)
    with database.engine.connect() as connection:
        found = counters(connection)

    assert found == [1, 3]


def test_async_savepoints_do_the_same(database: Database) -> None:
    async def main() -> tuple[list[int], list[int]]:
        async with database.async_engine() as engine:
            async with engine.begin() as connection:
                await connection.run_sync(create_counters)
            async with engine.connect() as connection:
                async with connection.begin_nested():
                    await connection.run_sync(add, 1)
                await connection.rollback()
                released = await connection.run_sync(counters)
                await connection.run_sync(add, 2)
                savepoint = await connection.begin_nested()
                await connection.run_sync(add, 3)
                await savepoint.rollback()
                await connection.commit()
                return released, await connection.run_sync(counters)

    assert asyncio.run(main()) == ([], [2])


def test_peewee_reaches_the_same_database(database: Database) -> None:
    with database.engine.begin() as connection:
        create_counters(connection)

    assert database.peewee.get_tables() == ["counter"]


DJANGO = """
from django.conf import settings
from django.db import connection
settings.configure(DATABASES={{"default": {django!r}}})
print(connection.introspection.table_names())
"""


def test_django_reaches_the_same_database(database: Database) -> None:
    """In a process of its own: Django is configured once in each."""
    with database.engine.begin() as connection:
        create_counters(connection)

    script = DJANGO.format(django=database.django)
    said = subprocess.check_output([sys.executable, "-c", script], text=True)

    assert said == "['counter']\n"


def create_counters(connection: Connection) -> None:
    connection.execute(text("create table counter (id integer)"))


def add(connection: Connection, number: int) -> None:
    connection.execute(text("insert into counter values (:number)"), {"number": number})


def counters(connection: Connection) -> list[int]:
    return list(connection.scalars(text("select id from counter order by id")))
