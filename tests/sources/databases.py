"""Databases as the tests of several files want them: SQLite files, and PostgreSQL's."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import peewee
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.sources.postgres import Postgres

Kind = Literal["sqlite", "postgresql"]


@dataclass(frozen=True, slots=True)
class Database:
    """One empty database, and how each library reaches it.

    `engine` and `peewee` are closed after the test. `django` is an entry of `DATABASES`.
    """

    kind: Kind
    url: str
    async_url: str
    engine: Engine
    peewee: peewee.Database
    django: dict[str, Any]

    @asynccontextmanager
    async def async_engine(self, **options: Any) -> AsyncIterator[AsyncEngine]:
        """Open an engine for the running event loop."""
        engine = create_async_engine(self.async_url, **options)
        if self.kind == "sqlite":
            obey_savepoints(engine.sync_engine)
        try:
            yield engine
        finally:
            await engine.dispose()


@contextmanager
def sqlite_database(file: Path) -> Iterator[Database]:
    """Use a file that does not exist yet."""
    url = f"sqlite:///{file}"
    engine = create_engine(url)
    obey_savepoints(engine)
    database = Database(
        kind="sqlite",
        url=url,
        async_url=f"sqlite+aiosqlite:///{file}",
        engine=engine,
        peewee=peewee.SqliteDatabase(str(file)),
        django={"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)},
    )
    with closing(database):
        yield database


@contextmanager
def postgresql_database(postgres: Postgres) -> Iterator[Database]:
    """Use a database that is dropped afterwards."""
    where: dict[str, Any] = {"host": postgres.host, "port": postgres.port, "user": postgres.user}
    with postgres.new_database() as name:
        url = postgres.url("psycopg", name)
        database = Database(
            kind="postgresql",
            url=url,
            async_url=postgres.url("asyncpg", name),
            engine=create_engine(url),
            peewee=peewee.PostgresqlDatabase(name, prefer_psycopg3=True, **where),
            django={
                "ENGINE": "django.db.backends.postgresql",
                "NAME": name,
                **{key.upper(): value for key, value in where.items()},
            },
        )
        with closing(database):
            yield database


@contextmanager
def closing(database: Database) -> Iterator[None]:
    try:
        yield
    finally:
        database.engine.dispose()
        database.peewee.close()


def obey_savepoints(engine: Engine) -> None:
    """The recipe of SQLAlchemy's documentation for SQLite's savepoints."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")
