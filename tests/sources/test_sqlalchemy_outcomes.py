"""Which transactions were committed, in all the ways that they can end, and what may go wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, Integer, create_engine, event, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from grip_edge_middleware.changes import Change
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.sqlalchemy import SQLAlchemySource
from tests.sources.conftest import NewDatabase
from tests.sources.databases import Database


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(
        ForeignKey("item.id", deferrable=True, initially="DEFERRED")
    )

    @property
    def slug(self) -> str:
        if self.name == "bad":
            raise ZeroDivisionError
        return self.name.lower()


class Other(Base):
    __tablename__ = "other"
    id: Mapped[int] = mapped_column(primary_key=True)


class Told(list[str]):
    """The names of the topics that were told, in order."""

    def __init__(self, topics: dict[str, Any]) -> None:
        super().__init__()
        self.metrics = Counts()
        settings = Settings.parse({"grip_url": "http://pushpin:5561", "topics": topics}, {})
        self.observer = Observer.of(settings, self._tell, self.metrics)
        self.source = SQLAlchemySource(self.observer)

    def _tell(self, changes: Any, *_: Any) -> None:
        self.extend(change.topic.name for change in changes)

    def change(self, name: str) -> Change:
        """A change of the template of that name."""
        [found] = [t for t in self.observer.topics if t.template.text == name]
        return Change(found.template.fill({}), found)

    def defer(self, target: object, name: str = "manual") -> None:
        assert self.source.defer(target, [self.change(name)])

    def take(self) -> list[str]:
        taken = sorted(self)
        self.clear()
        return taken


Watch = Callable[..., Told]
TOPICS: dict[str, Any] = {
    "item-{name}": {"models": [Item]},
    "other-{id}": {"models": [Other]},
    "manual": {},
    "manual-too": {},
}


@pytest.fixture
def watch() -> Iterator[Watch]:
    told: list[Told] = []

    def watch(topics: dict[str, Any] = TOPICS) -> Told:
        told.append(Told(topics))
        return told[-1]

    yield watch
    for each in told:
        each.source.disconnect()


@pytest.fixture
def engine(database: Database) -> Engine:
    return prepared(database)


def prepared(database: Database) -> Engine:
    """With tables, and references that are checked."""
    if database.kind == "sqlite":
        event.listen(database.engine, "connect", _check_references)
    Base.metadata.create_all(database.engine)
    return database.engine


def _check_references(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA foreign_keys=ON")


# --- ends of transactions ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "create_savepoint"])
@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_session_in_an_outer_transaction_is_told_by_its_outcome(
    engine: Engine, watch: Watch, mode: Any, outcome: str
) -> None:
    told = watch()
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(bind=connection, join_transaction_mode=mode) as session:
            session.add(Item(name="blue"))
            session.commit()
        assert told == []
        getattr(transaction, outcome)()

    assert told == (["item-blue"] if outcome == "commit" else [])


@pytest.mark.parametrize("mode", ["control_fully", "conditional_savepoint"])
def test_a_session_in_a_savepoint_that_it_may_end_is_told_by_the_transaction(
    engine: Engine, watch: Watch, mode: Any
) -> None:
    told = watch()
    with engine.connect() as connection, connection.begin() as transaction:
        savepoint = connection.begin_nested()
        with Session(bind=connection, join_transaction_mode=mode) as session:
            session.add(Item(name="blue"))
            session.flush()
            session.rollback() if mode == "conditional_savepoint" else None
        if savepoint.is_active:
            savepoint.rollback()
        if transaction.is_active:
            connection.execute(insert(Other), [{"id": 1}])
            transaction.commit()

    assert "item-blue" not in told


def test_a_session_that_controls_a_transaction_fully_is_told_at_its_commit(
    engine: Engine, watch: Watch
) -> None:
    told = watch()
    with engine.connect() as connection:
        connection.begin()
        with Session(bind=connection, join_transaction_mode="control_fully") as session:
            session.add(Item(name="blue"))
            session.commit()

            assert told == ["item-blue"]


@pytest.mark.parametrize("outcome", ["commit", "rollback", "close"])
@pytest.mark.parametrize("is_prepared", [True, False])
def test_a_two_phase_commit_is_told_after_the_second(
    new_database: NewDatabase, watch: Watch, outcome: str, is_prepared: bool
) -> None:
    one, other = new_database(), new_database()
    if one.kind == "sqlite":
        pytest.skip("SQLite has no two-phase commit")
    told = watch()
    binds: dict[Any, Any] = {Item: prepared(one), Other: prepared(other)}
    with Session(binds=binds, twophase=True) as session:
        session.add_all([Item(name="blue"), Other(id=1)])
        session.flush()
        if is_prepared:
            session.prepare()
        assert told == []
        getattr(session, outcome)()

    assert told.take() == (["item-blue", "other-1"] if outcome == "commit" else [])


def test_a_two_phase_commit_by_connection_is_told(database: Database, watch: Watch) -> None:
    if database.kind == "sqlite":
        pytest.skip("SQLite has no two-phase commit")
    engine, told = prepared(database), watch()
    told.source.follow(engine)
    with engine.connect() as connection:
        transaction = connection.begin_twophase()
        connection.execute(insert(Item), {"name": "blue"})
        transaction.prepare()
        assert told == []
        transaction.commit()

    assert told == ["item-%all"]


def test_autocommit_of_an_engine_is_told_at_once(database: Database, watch: Watch) -> None:
    prepared(database)
    engine = create_engine(database.url, isolation_level="AUTOCOMMIT")
    told = watch()
    with Session(engine) as session:
        session.add(Item(name="blue"))
        session.flush()
        assert told.take() == ["item-blue"]
        session.execute(text("UPDATE item SET name = 'red'"))
        assert told.take() == ["item-%all"]
        session.rollback()
    engine.dispose()

    assert told == []


def test_autocommit_of_a_connection_is_told_at_once(engine: Engine, watch: Watch) -> None:
    told = watch()
    told.source.follow(engine)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(insert(Item), {"name": "blue"})
        assert told.take() == ["item-%all"]
        connection.rollback()
    with engine.connect() as connection:
        connection.execute(insert(Item), {"name": "red"})
        connection.rollback()

    assert told == []


def test_each_bind_of_a_session_is_told_by_its_own_commit(
    new_database: NewDatabase, watch: Watch
) -> None:
    told = watch()
    binds: dict[Any, Any] = {Item: prepared(new_database()), Other: prepared(new_database())}
    with Session(binds=binds) as session:
        session.add_all([Item(name="blue"), Other(id=1)])
        session.flush()
        session.rollback()
        session.add_all([Item(name="red"), Other(id=2)])
        session.commit()

    assert told.take() == ["item-red", "other-2"]


def test_two_sessions_at_a_time_are_told_by_their_own_commits(
    new_database: NewDatabase, watch: Watch
) -> None:
    told = watch()
    first, second = prepared(new_database()), prepared(new_database())
    with Session(first) as one, Session(second) as two:
        one.add(Item(name="one"))
        two.add(Item(name="two"))
        one.flush()
        two.flush()
        one.rollback()
        assert told == []
        two.commit()

    assert told == ["item-two"]


def test_a_commit_that_the_database_refuses_may_have_been_made(
    engine: Engine, watch: Watch
) -> None:
    """It is refused only now: the reference is checked at the end."""
    told = watch()
    with Session(engine) as session:
        session.add(Item(name="blue", parent_id=99))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.add(Item(name="red"))
        session.rollback()

    assert told == ["item-blue"]


def test_a_session_that_is_closed_forgets(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Item(name="blue"))
        session.flush()
    with Session(engine) as session:
        session.add(Item(name="red"))
        session.commit()

    assert told == ["item-red"]


def test_a_connection_that_is_lost_forgets(
    database: Database, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    if database.kind == "sqlite":
        pytest.skip("a file cannot be lost")
    engine, told = prepared(database), watch()
    with Session(engine) as session, engine.connect() as killer:
        session.add(Item(name="blue"))
        session.flush()
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        killer.execute(text(f"SELECT pg_terminate_backend({pid})"))
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1"))
        session.rollback()
        session.add(Item(name="red"))
        session.commit()

    assert told == ["item-red"]
    assert not caplog.records


# --- flushes that are none --------------------------------------------------------------------


def write_in_bulk(session: Session) -> None:
    session.execute(insert(Item), [{"name": "a"}, {"name": "b"}])
    session.commit()


def test_a_flush_that_writes_nothing_hides_no_write_after_it(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Item(name="blue"))
        session.commit()
        told.clear()
        item = session.query(Item).one()
        item.name = item.name
        session.flush()
        write_in_bulk(session)

    assert told == ["item-%all"]


def test_a_flush_that_fails_hides_no_write_after_it(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Item(id=99, name="blue"))
        session.commit()
        told.clear()
        session.expunge_all()
        session.add(Item(id=99, name="twin"))
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        write_in_bulk(session)

    assert told == ["item-%all"]


def test_a_listener_that_refuses_a_flush_hides_no_write_after_it(
    engine: Engine, watch: Watch
) -> None:
    told = watch()
    with Session(engine) as session:

        @event.listens_for(session, "before_flush", once=True)
        def refuse(*_: Any) -> None:
            raise ZeroDivisionError

        session.add(item := Item(name="blue"))
        with pytest.raises(ZeroDivisionError):
            session.flush()
        session.expunge(item)
        write_in_bulk(session)

    assert told == ["item-%all"]


def test_a_session_that_is_flushed_in_a_flush_hides_neither(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:

        @event.listens_for(Item, "before_insert", once=True)
        def write(mapper: Any, connection: Any, item: Item) -> None:
            with Session(bind=connection, join_transaction_mode="rollback_only") as inner:
                inner.add(Other(id=1))
                inner.commit()

        session.add(Item(name="blue"))
        session.commit()

    assert told.take() == ["item-blue", "other-1"]


def test_flushes_of_two_tasks_are_told_apart(database: Database, watch: Watch) -> None:
    if database.kind == "sqlite":
        pytest.skip("SQLite writes one at a time")
    prepared(database)
    told = watch()

    async def main() -> None:
        async with database.async_engine() as engine:

            async def add(number: int) -> None:
                async with AsyncSession(engine) as session:
                    session.add_all(Item(name=f"{number}-{n}") for n in range(5))
                    await session.flush()
                    if number % 2:
                        await session.rollback()
                    await session.commit()

            await asyncio.gather(*(add(number) for number in range(10)))

    asyncio.run(main())
    assert told.take() == sorted(f"item-{i}-{n}" for i in range(0, 10, 2) for n in range(5))


# --- what waits for a commit ------------------------------------------------------------------


def test_what_waits_in_an_open_transaction_is_told_at_its_commit(
    engine: Engine, watch: Watch
) -> None:
    told = watch()
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        told.defer(session)
        assert told == []
        session.commit()

    assert told == ["manual"]


def test_what_waits_for_a_transaction_that_is_not_begun_is_told_at_its_commit(
    engine: Engine, watch: Watch
) -> None:
    told = watch()
    with Session(engine) as session:
        told.defer(session)
        session.add(Item(name="blue"))
        session.flush()
        assert told == []
        session.commit()

    assert told.take() == ["item-blue", "manual"]


def test_what_waits_for_a_commit_that_has_nothing_to_commit_is_told(
    engine: Engine, watch: Watch
) -> None:
    told = watch()
    with Session(engine) as session:
        told.defer(session)
        session.commit()

    assert told == ["manual"]


@pytest.mark.parametrize("is_connected", [True, False])
@pytest.mark.parametrize("end", ["rollback", "close"])
def test_what_waits_is_forgotten_with_its_transaction(
    engine: Engine, watch: Watch, is_connected: bool, end: str
) -> None:
    told = watch()
    session = Session(engine)
    session.begin()
    if is_connected:
        session.connection()
    told.defer(session)
    getattr(session, end)()
    session.add(Item(name="blue"))
    session.commit()
    session.close()

    assert told == ["item-blue"]


@pytest.mark.parametrize("is_connected", [True, False])
def test_what_waits_is_forgotten_with_its_savepoint(
    engine: Engine, watch: Watch, is_connected: bool
) -> None:
    told = watch()
    with Session(engine) as session:
        if is_connected:
            session.connection()
        told.defer(session, "manual")
        savepoint = session.begin_nested()
        told.defer(session, "manual-too")
        savepoint.rollback()
        session.commit()

    assert told == ["manual"]


def test_a_scoped_session_can_be_waited_for(engine: Engine, watch: Watch) -> None:
    told, session = watch(), scoped_session(sessionmaker(engine))
    told.defer(session)
    session.add(Item(name="blue"))
    session.flush()
    assert told == []
    session.commit()
    session.remove()

    assert told.take() == ["item-blue", "manual"]


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_connection_can_be_waited_for(engine: Engine, watch: Watch, outcome: str) -> None:
    told = watch()
    with engine.connect() as connection:
        transaction = connection.begin()
        told.defer(connection)
        assert told == []
        getattr(transaction, outcome)()

    assert told == (["manual"] if outcome == "commit" else [])


def test_an_async_session_and_its_connection_can_be_waited_for(
    database: Database, watch: Watch
) -> None:
    prepared(database)
    told = watch()

    async def main() -> None:
        async with database.async_engine() as engine:
            async with AsyncSession(engine) as session:
                told.defer(session)
                await session.execute(text("SELECT 1"))
                assert told == []
                await session.commit()
                assert told.take() == ["manual"]
                told.defer(session)
                await session.rollback()
            async with engine.connect() as connection:
                await connection.begin()
                told.defer(connection)
                assert told == []
                await connection.commit()

    asyncio.run(main())
    assert told == ["manual"]


# --- engines without a session ----------------------------------------------------------------


def test_an_engine_that_is_followed_is_told_without_a_session(engine: Engine, watch: Watch) -> None:
    told = watch()
    told.source.follow(engine)
    with engine.begin() as connection:
        connection.execute(insert(Item), [{"name": "a"}, {"name": "b"}])
        assert told == []
    with engine.connect() as connection:
        connection.execute(text("UPDATE item SET name = 'c'"))

    assert told == ["item-%all"]


def test_an_async_engine_that_is_followed_is_told_without_a_session(
    database: Database, watch: Watch
) -> None:
    prepared(database)
    told = watch()

    async def main() -> None:
        async with database.async_engine() as engine:
            told.source.follow(engine)
            async with engine.begin() as connection:
                await connection.execute(insert(Item), [{"name": "a"}, {"name": "b"}])
                assert told == []
            async with engine.connect() as connection:
                await connection.execute(text("UPDATE item SET name = 'c'"))

    asyncio.run(main())
    assert told == ["item-%all"]


def test_a_text_deletes_what_refers_to_the_rows_though_nobody_has_used_the_models(
    engine: Engine, watch: Watch
) -> None:
    class Fresh(DeclarativeBase):
        pass

    class Parent(Fresh):
        __tablename__ = "fresh_parent"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Child(Fresh):
        __tablename__ = "fresh_child"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("fresh_parent.id", ondelete="CASCADE"))

    told = watch({"child-{id}": {"models": [Child]}})
    Fresh.metadata.create_all(engine)
    told.source.follow(engine)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO fresh_parent (id) VALUES (1)"))
        connection.execute(text("DELETE FROM fresh_parent"))

    assert told == ["child-%all"]


# --- what is not to be told -------------------------------------------------------------------


def test_what_is_flushed_in_a_suppressed_block_is_not_told(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        with told.observer.suppress():
            session.add(Item(name="blue"))
            session.flush()
            session.execute(text("UPDATE item SET name = 'red'"))
        session.commit()

    assert told == []


def test_what_is_flushed_after_a_suppressed_block_is_told(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        with told.observer.suppress():
            session.add(Item(name="blue"))
        session.commit()

    assert told == ["item-blue"]


def test_what_was_flushed_before_a_suppressed_block_is_told(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Item(name="blue"))
        session.flush()
        with told.observer.suppress():
            session.commit()

    assert told == ["item-blue"]


def test_a_suppressed_block_ends_with_the_outer_one(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        with told.observer.suppress():
            with told.observer.suppress():
                pass
            session.add(Item(name="blue"))
            session.flush()
        session.add(Item(name="red"))
        session.commit()

    assert told == ["item-red"]


def test_one_edge_is_suppressed_and_another_is_not(engine: Engine, watch: Watch) -> None:
    told, other = watch(), watch()
    with Session(engine) as session, told.observer.suppress():
        session.add(Item(name="blue"))
        session.commit()

    assert (told, other) == ([], ["item-blue"])


def test_a_task_is_suppressed_for_itself(database: Database, watch: Watch) -> None:
    prepared(database)
    told = watch()

    async def main() -> None:
        async with database.async_engine() as engine:
            is_inside, may_go = asyncio.Event(), asyncio.Event()

            async def add(name: str) -> None:
                async with AsyncSession(engine) as session:
                    session.add(Item(name=name))
                    await session.commit()

            async def silently() -> None:
                with told.observer.suppress():
                    is_inside.set()
                    await may_go.wait()
                    await asyncio.create_task(add("silent"))

            task = asyncio.create_task(silently())
            await is_inside.wait()
            await add("loud")
            may_go.set()
            await task

    asyncio.run(main())
    assert told == ["item-loud"]


# --- faults -----------------------------------------------------------------------------------


def broken(item: Item) -> str:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        ({"item-{name}": {"models": [{"model": Item, "when": broken}]}}, ["item-blue"]),
        ({"item-{name}": {"models": [Item], "payload": broken}}, ["item-blue"]),
        ({"item-{name}": {"models": [{"model": Item, "when": "nowhere:x"}]}}, ["item-blue"]),
        ({"item-{slug}": {"models": [Item]}}, ["item-%all"]),
    ],
    ids=["when", "payload", "a path that names nothing", "an attribute"],
)
def test_a_fault_changes_what_it_may_concern_and_breaks_no_commit(
    engine: Engine,
    watch: Watch,
    caplog: pytest.LogCaptureFixture,
    topics: dict[str, Any],
    expected: list[str],
) -> None:
    told = watch(topics)
    with Session(engine) as session:
        session.add(Item(name="bad" if expected == ["item-%all"] else "blue"))
        session.commit()
        assert session.query(Item).count() == 1

    assert told == expected
    assert told.metrics.snapshot() == {"source_faults": 1}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_class_that_turns_out_to_lack_an_attribute_breaks_no_commit(
    engine: Engine, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its path named nothing yet when the settings were read."""

    module = f"late_on_{engine.dialect.name}"
    told = watch({"late-{nothing}": {"models": [f"{module}:Late"]}})

    class Apart(DeclarativeBase):
        pass

    columns = {"id": mapped_column(Integer, primary_key=True)}
    late = type("Late", (Apart,), {"__module__": module, "__tablename__": "late", **columns})
    Apart.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(late())
        session.commit()

    assert told.metrics.snapshot()["source_faults"] == 1
    assert "Late has no attribute 'nothing'" in caplog.text


@pytest.mark.parametrize("operation", ["update", "delete"])
def test_an_old_value_that_cannot_be_known_changes_all(
    engine: Engine, watch: Watch, operation: str
) -> None:
    told = watch({"item-{slug}": {"models": [Item]}})
    with Session(engine) as session:
        session.add(item := Item(name="bad"))
        with told.observer.suppress():
            session.commit()
        if operation == "update":
            item.name = "good"
        else:
            session.delete(item)
        session.commit()

    assert told == ["item-%all"]


def test_a_statement_that_cannot_be_understood_changes_everything(
    engine: Engine, watch: Watch
) -> None:
    told = watch()

    class BrokenError(Exception):
        pass

    class Broken(str):
        __slots__ = ()

        def lstrip(self, *_: Any) -> str:
            raise BrokenError

    told.source.follow(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(Broken("UPDATE item SET name = 'x'"))

    assert told == ["%all"]
