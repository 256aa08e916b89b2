"""Each way of writing, with each outcome of its transaction, by each kind of session.

What is told is told once and after the commit, whoever writes it and however.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import sqlmodel
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session

from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.sqlalchemy import SQLAlchemySource
from tests.sources import matrix, sqlmodels
from tests.sources.databases import obey_savepoints, postgresql_database, sqlite_database
from tests.sources.matrix import SEEDS, WAYS, MissingModelError, Models, Way, World


class Base(DeclarativeBase):
    pass


@dataclass(frozen=True)
class Variant:
    """One kind of session on one kind of database, empty but for the seeds."""

    name: str
    kind: str
    models: Models
    engine: Engine
    """For the seeds, and for those who are not asynchronous."""
    session: Callable[[], Any]
    async_url: str = ""

    @property
    def is_async(self) -> bool:
        return bool(self.async_url)

    def seed(self) -> None:
        """Have nothing in the database but the seeds."""
        with self.engine.begin() as connection:
            if self.kind == "sqlite":
                connection.execute(text("PRAGMA defer_foreign_keys=ON"))
            for table in reversed(self.models.metadata.sorted_tables):
                connection.execute(table.delete())
            for name, values in SEEDS:
                if name in self.models.metadata.tables:
                    connection.execute(self.models.metadata.tables[name].insert().values(values))

    def count_from_one(self) -> None:
        """Have the next key of the database be 1, which a rollback does not take back."""
        if self.kind == "postgresql":
            with self.engine.begin() as connection:
                connection.execute(text("ALTER SEQUENCE log_id_seq RESTART"))


class Told(list[str]):
    """The names of the topics that were told, in order."""

    def tell(self, changes: Any, *_: Any) -> None:
        self.extend(change.topic.name for change in changes)

    def take(self) -> tuple[str, ...]:
        taken = tuple(sorted(self))
        self.clear()
        return taken


def obey_references(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        connection.execute("PRAGMA foreign_keys=ON")


VARIANTS = ("sqlite", "postgresql", "aiosqlite", "asyncpg", "sqlmodel", "flask")


@pytest.fixture(scope="module", params=VARIANTS)
def variant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Variant]:
    name: str = request.param
    with ExitStack() as stack:
        if name in ("postgresql", "asyncpg"):
            database = stack.enter_context(postgresql_database(request.getfixturevalue("postgres")))
        else:
            file = tmp_path_factory.mktemp("matrix") / "matrix.sqlite3"
            database = stack.enter_context(sqlite_database(file))
            obey_references(database.engine)
        models, engine, session = DECLARED, database.engine, lambda: Session(engine)
        if name == "sqlmodel":
            models, session = SQLMODELS, lambda: sqlmodel.Session(engine)
        elif name == "flask":
            models, engine, session = stack.enter_context(flask_app(database.url))
        async_url = database.async_url if name in ("aiosqlite", "asyncpg") else ""
        models.metadata.create_all(engine)
        yield Variant(name, database.kind, models, engine, session, async_url)
        engine.dispose()


DECLARED = matrix.declare(Base)
SQLMODELS = sqlmodels.models()


@contextmanager
def flask_app(url: str) -> Iterator[tuple[Models, Engine, Callable[[], Any]]]:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    db = SQLAlchemy()
    db.init_app(app)
    models = matrix.declare(db.Model)
    with app.app_context():
        obey_savepoints(db.engine)
        obey_references(db.engine)
        yield models, db.engine, lambda: db.session


# --- outcomes ---------------------------------------------------------------------------------

# What leaves the database as it was comes first.
OUTCOMES = {
    "rollback": False,
    "savepoint released, rollback": False,
    "savepoint rolled back, commit": False,
    "savepoint released, commit": True,
    "commit": True,
}


def end_now(outcome: str, way: Way, session: Any, world: World, told: Told) -> None:
    """Write, and end the transaction so; nothing may be told before its end."""
    savepoint = session.begin_nested() if "savepoint" in outcome else None
    matrix.write_now(way, session, world)
    if outcome != "commit":
        session.flush()
    if savepoint is not None:
        savepoint.rollback() if "rolled back" in outcome else savepoint.commit()
        world.stack.close()
    assert told == [], "told before the end"
    session.rollback() if outcome.endswith("rollback") else session.commit()
    world.stack.close()


async def end_async(outcome: str, way: Way, session: Any, world: World, told: Told) -> None:
    savepoint = await session.begin_nested() if "savepoint" in outcome else None
    await matrix.write_async(way, session, world)
    if outcome != "commit":
        await session.flush()
    if savepoint is not None:
        await (savepoint.rollback() if "rolled back" in outcome else savepoint.commit())
        world.stack.close()
    assert told == [], "told before the end"
    await (session.rollback() if outcome.endswith("rollback") else session.commit())
    world.stack.close()


def observe(variant: Variant, way: Way) -> dict[str, tuple[str, ...]]:
    """Return what is told for each outcome."""
    with observed(variant.models) as told:
        seed(variant, "", told)
        if variant.is_async:
            return asyncio.run(_observe_async(variant, way, told))
        return {outcome: _observe_now(variant, way, outcome, told) for outcome in OUTCOMES}


def _observe_now(variant: Variant, way: Way, outcome: str, told: Told) -> tuple[str, ...]:
    session, world = variant.session(), World(variant.models, variant.kind)
    try:
        end_now(outcome, way, session, world, told)
    finally:
        world.stack.close()
        session.rollback()
        getattr(session, "remove", session.close)()
    seen = told.take()
    seed(variant, outcome, told)
    return seen


async def _observe_async(variant: Variant, way: Way, told: Told) -> dict[str, tuple[str, ...]]:
    seen = {}
    engine = create_async_engine(variant.async_url)
    if variant.kind == "sqlite":
        obey_savepoints(engine.sync_engine)
        obey_references(engine.sync_engine)
    try:
        for outcome in OUTCOMES:
            world = World(variant.models, variant.kind)
            async with AsyncSession(engine) as session:
                with world.stack:
                    await end_async(outcome, way, session, world, told)
            seen[outcome] = told.take()
            seed(variant, outcome, told)
    finally:
        await engine.dispose()
    return seen


def seed(variant: Variant, outcome: str, told: Told) -> None:
    """Have the database as it was before the outcome."""
    if OUTCOMES.get(outcome, True):
        variant.seed()
    variant.count_from_one()
    told.clear()


@contextmanager
def observed(models: Models) -> Iterator[Told]:
    told = Told()
    settings = Settings.parse(matrix.settings_of(models), {})
    source = SQLAlchemySource(Observer.of(settings, told.tell, Counts()))
    try:
        yield told
    finally:
        source.disconnect()


# --- the matrix -------------------------------------------------------------------------------

Results = dict[tuple[str, str], str]


@pytest.fixture(scope="session")
def results() -> Iterator[Results]:
    """What came of each way with each variant: printed at the end, by `pytest -s`."""
    results: Results = {}
    yield results
    print("\n" + matrix.table(results, VARIANTS))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name.replace(" ", "-"))
def test_each_way_is_told_once_and_after_its_commit(
    variant: Variant, way: Way, results: Results
) -> None:
    cell = way.name, variant.name
    if way.database not in ("", variant.kind):
        pytest.skip(f"only {way.database} has it")
    try:
        seen = observe(variant, way)
    except MissingModelError as missing:
        pytest.skip(f"{variant.name} has no model {missing}")

    expected = {o: way.told if is_told else () for o, is_told in OUTCOMES.items()}
    results[cell] = f"{sum(seen[o] == expected[o] for o in OUTCOMES)}/{len(OUTCOMES)}"
    assert seen == expected
