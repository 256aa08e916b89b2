"""The outbox in real databases: one row with each transaction that changes something."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from grip_edge_middleware.outbox import OutboxRow
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources.sqlalchemy import SQLAlchemySource, create_outbox
from grip_edge_middleware.sources.sqlalchemy.outbox import SQLAlchemyOutbox
from tests.sources.databases import Database
from tests.sources.outboxes import Edge, left_by_another

AnEdge = Edge[SQLAlchemySource]


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


outbox_table = create_outbox(Base.metadata)
SETTINGS = Settings.parse({"topics": {"item-{name}": {"models": [Item]}}}, {})


@pytest.fixture
def edge(database: Database) -> Iterator[AnEdge]:
    edge = Edge(SETTINGS, SQLAlchemySource)
    yield edge
    edge.deliver_and_close()


@pytest.fixture
def engine(database: Database) -> Engine:
    Base.metadata.create_all(database.engine)
    return database.engine


def rows(engine: Engine) -> list[list[str]]:
    """The topics of each row."""
    with engine.connect() as connection:
        found = connection.execute(select(outbox_table.c.changes)).scalars()
        return sorted(sorted(c["topic"] for c in json.loads(row)) for row in found)


def test_a_commit_writes_one_row_for_all_that_it_changes(edge: AnEdge, engine: Engine) -> None:
    with Session(engine) as session:
        session.add_all([Item(name="a"), Item(name="b")])
        session.commit()

    assert rows(engine) == [["item-a", "item-b"]]
    assert sorted(edge.submitted) == ["item-a", "item-b"]


def test_the_row_is_in_the_same_transaction(edge: AnEdge, engine: Engine) -> None:
    before: list[list[list[str]]] = []

    class Watching(SQLAlchemyOutbox):
        def insert(self, connection: Any, row: OutboxRow) -> None:
            super().insert(connection, row)
            before.append(rows(engine))

    with Session(engine) as session:
        session.add(Item(name="a"))
        session.flush()
        watching = edge.source._outboxes[engine.dialect] = Watching(engine)
        edge.outbox.add_table(watching)
        session.commit()

    assert before == [[]]
    assert rows(engine) == [["item-a"]]


def test_a_rollback_writes_nothing(edge: AnEdge, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Item(name="a"))
        session.flush()
        session.rollback()
        session.execute(text("SELECT 1"))
        session.commit()

    assert rows(engine) == []


def test_a_rolled_back_savepoint_is_not_in_the_row(edge: AnEdge, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Item(name="a"))
        savepoint = session.begin_nested()
        session.add(Item(name="b"))
        session.flush()
        savepoint.rollback()
        with session.begin_nested():
            session.add(Item(name="c"))
        session.commit()

    assert rows(engine) == [["item-a", "item-c"]]


def test_a_row_is_deleted_when_it_is_delivered(edge: AnEdge, engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Item(name="a"))
        session.commit()

    edge.deliver_and_close()

    assert rows(engine) == []


def test_a_prepared_transaction_has_its_row(edge: AnEdge, engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no two-phase commit")
    with Session(engine, twophase=True) as session:
        session.add(Item(name="a"))
        session.commit()

    assert rows(engine) == [["item-a"]]
    assert edge.submitted == ["item-a"]


def test_a_missing_table_does_not_break_the_transaction(
    edge: AnEdge, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    Item.metadata.tables["item"].create(database.engine)
    with Session(database.engine) as session:
        session.add(Item(name="a"))
        session.commit()

    with Session(database.engine) as session:
        assert session.scalars(select(Item.name)).all() == ["a"]
    assert edge.submitted == ["item-a"]
    assert "was the table created?" in caplog.text
    assert edge.metrics.snapshot()["outbox_faults"] >= 1


def test_what_a_killed_process_left_is_taken(edge: AnEdge, engine: Engine) -> None:
    write(engine, left_by_another("left"))

    with Session(engine) as session:
        session.execute(select(Item))

    edge.wait_for("item-left")


def test_an_engine_that_no_session_uses_is_looked_after_by_name(
    edge: AnEdge, engine: Engine
) -> None:
    write(engine, left_by_another("left"))

    assert edge.source.follow(engine)

    edge.wait_for("item-left")


def test_an_async_session_writes_rows_which_are_deleted_and_taken(
    edge: AnEdge, database: Database, engine: Engine
) -> None:
    write(engine, left_by_another("left"))

    async def save() -> None:
        async with database.async_engine() as async_engine, AsyncSession(async_engine) as session:
            session.add(Item(name="a"))
            await session.commit()
            assert await asyncio.to_thread(rows, engine) == [["item-a"], ["item-left"]]

    asyncio.run(save())
    edge.wait_for("item-left", "item-a")
    edge.deliver_and_close()

    assert rows(engine) == []


def write(engine: Engine, *rows: dict[str, object]) -> None:
    with engine.begin() as connection:
        connection.execute(outbox_table.insert(), rows)


# --- the table --------------------------------------------------------------------------------


@pytest.fixture
def table(engine: Engine) -> Iterator[SQLAlchemyOutbox]:
    table = SQLAlchemyOutbox(engine)
    yield table
    table.close()


def due(*times: int) -> list[dict[str, object]]:
    return [{"id": f"r{time}", "edge": "", "due": time, "changes": "[]"} for time in times]


def test_what_is_due_is_taken_oldest_first(engine: Engine, table: SQLAlchemyOutbox) -> None:
    write(engine, *due(3, 1, 2, 9))

    taken = [row.id for row in table.take(now=5, until=100, limit=2)]

    assert sorted(taken) == ["r1", "r2"]
    assert [row.id for row in table.take(now=5, until=100, limit=2)] == ["r3"]
    assert table.take(now=5, until=100, limit=2) == []


def test_what_is_of_another_name_is_left_to_it(engine: Engine, table: SQLAlchemyOutbox) -> None:
    write(engine, {"id": "r1", "edge": "shop", "due": 1, "changes": "[]"})
    shop = SQLAlchemyOutbox(engine, "shop")

    assert table.take(now=5, until=100, limit=9) == []
    assert [row.id for row in shop.take(now=5, until=100, limit=9)] == ["r1"]
    shop.close()


def test_what_is_kept_is_not_due(engine: Engine, table: SQLAlchemyOutbox) -> None:
    write(engine, *due(1, 2))

    table.keep(["r1", "gone"], until=100)

    assert [row.id for row in table.take(now=5, until=100, limit=9)] == ["r2"]


def test_what_is_deleted_is_gone(engine: Engine, table: SQLAlchemyOutbox) -> None:
    write(engine, *due(1, 2))

    table.delete(["r1", "gone"])

    assert [row.id for row in table.take(now=5, until=100, limit=9)] == ["r2"]


def test_a_row_that_another_is_taking_is_left_to_it(engine: Engine) -> None:
    """PostgreSQL skips what is locked, SQLite has one writer at a time."""
    write(engine, *due(*range(1, 41)))
    tables = [SQLAlchemyOutbox(engine) for _ in range(4)]
    taken: list[str] = []
    start = threading.Barrier(4)

    def take(table: SQLAlchemyOutbox) -> None:
        start.wait()
        for _ in range(10):
            taken.extend(row.id for row in table.take(now=50, until=100, limit=5))
        table.close()

    threads = [threading.Thread(target=take, args=(table,)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == sorted(f"r{due}" for due in range(1, 41))


def test_the_outbox_can_be_added_twice() -> None:
    metadata = MetaData()

    assert create_outbox(metadata) is create_outbox(metadata)
