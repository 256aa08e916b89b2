"""What is noted of a statement, and looked at only when it is committed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    create_engine,
    delete,
    event,
    insert,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from grip_edge_middleware.changes import Change
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.sqlalchemy import SQLAlchemySource
from tests.sources.databases import obey_savepoints


class Base(DeclarativeBase):
    pass


class Label(Base):
    __tablename__ = "st_label"
    id: Mapped[int] = mapped_column(primary_key=True)


class Story(Base):
    __tablename__ = "st_story"
    id: Mapped[int] = mapped_column(primary_key=True)
    votes: Mapped[int] = mapped_column(default=0)
    labels: Mapped[list[Label]] = relationship(secondary="st_labelled")


labelled = Table(
    "st_labelled",
    Base.metadata,
    Column("story_id", ForeignKey("st_story.id")),
    Column("label_id", ForeignKey("st_label.id")),
)


class Told(list[str]):
    """The names of the topics that were told."""

    def __call__(self, changes: Any) -> None:
        self.extend(change.topic.name for change in changes)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def source(told: Told) -> Iterator[SQLAlchemySource]:
    topics = {"story-{id}": {"models": [Story]}}
    settings = Settings.parse({"grip_url": "http://pushpin:5561", "topics": topics}, {})
    source = SQLAlchemySource(Observer.of(settings, told, Counts()))
    yield source
    source.disconnect()


@pytest.fixture
def engine(tmp_path: Path, source: SQLAlchemySource) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    obey_savepoints(engine)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(insert(Story), [{"id": number} for number in (1, 2, 3)])
    source.follow(engine)
    yield engine
    engine.dispose()


def vote(connection: Connection, pk: int) -> None:
    connection.execute(update(Story).where(Story.id == pk).values(votes=Story.votes + 1))


def test_each_row_is_told_once(engine: Engine, told: Told) -> None:
    with engine.begin() as connection:
        for pk in (1, 2, 1, 2):
            vote(connection, pk)
        assert told == []

    assert told == ["story-1", "story-2"]


def test_a_savepoint_that_is_rolled_back_takes_its_statements_along(
    engine: Engine, told: Told
) -> None:
    with engine.begin() as connection:
        vote(connection, 1)
        savepoint = connection.begin_nested()
        vote(connection, 2)
        savepoint.rollback()
        vote(connection, 3)

    assert told == ["story-1", "story-3"]


def test_a_statement_that_finds_no_row_tells_nothing(engine: Engine, told: Told) -> None:
    with engine.begin() as connection:
        vote(connection, 9)
        connection.execute(delete(Story).where(Story.id == 9))

    assert told == []


def test_parameters_count_as_they_were_when_it_was_executed(engine: Engine, told: Told) -> None:
    parameters = {"id": 1}
    with engine.begin() as connection:
        sql = "UPDATE st_story SET votes = 1 WHERE id = :id"
        connection.exec_driver_sql(sql, parameters)
        parameters["id"] = 2

    assert told == ["story-1"]


def test_a_text_that_is_rewritten_each_time_still_tells_the_row(engine: Engine, told: Told) -> None:
    numbers = iter(range(10))

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def trace(_: object, __: object, sql: str, parameters: Any, *___: object) -> tuple[str, Any]:
        return f"/* {next(numbers)} */ {sql}", parameters

    with engine.begin() as connection:
        vote(connection, 1)
        vote(connection, 2)

    assert told == ["story-1", "story-2"]


def test_a_list_of_any_length_tells_its_rows(engine: Engine, told: Told) -> None:
    with engine.begin() as connection:
        for pks in ([1], [2, 3]):
            connection.execute(update(Story).where(Story.id.in_(pks)).values(votes=5))

    assert told == ["story-1", "story-2", "story-3"]


def test_what_is_suppressed_stays_so_when_it_is_committed(
    engine: Engine, source: SQLAlchemySource, told: Told
) -> None:
    with engine.begin() as connection:
        with source.observer.suppress():
            vote(connection, 1)
        vote(connection, 2)

    assert told == ["story-2"]


def test_a_commit_that_is_suppressed_tells_what_was_written_before(
    engine: Engine, source: SQLAlchemySource, told: Told
) -> None:
    with engine.connect() as connection:
        vote(connection, 1)
        with source.observer.suppress():
            connection.commit()

    assert told == ["story-1"]


def test_a_key_that_turns_out_to_be_none_tells_the_table(engine: Engine, told: Told) -> None:
    columns = Column("id", Integer, primary_key=True), Column("n", Integer)
    stock = Table("st_stock", MetaData(), *columns)
    stock.create(engine)
    with engine.begin() as connection:
        connection.execute(insert(stock).values(id=1))
    source = SQLAlchemySource(_rows_observer(told))
    with engine.begin() as connection:
        connection.execute(update(stock).where(stock.c.id == 1).values(n=1))
        # Of another schema, where it is identified by something else.
        Table("st_stock", stock.metadata, Column("n", primary_key=True), schema="other")
    source.disconnect()

    assert told == ["%row:st_stock:%all"]


def _rows_observer(told: Told) -> Observer:
    topics = {"story-{id}": {"models": [Story], "auto_tags": True}}
    settings = Settings.parse({"grip_url": "http://pushpin:5561", "topics": topics}, {})
    return Observer.of(settings, told, Counts())


def test_a_hook_that_commits_what_was_written_before_the_flush_tells_all_of_it(
    engine: Engine, source: SQLAlchemySource, told: Told, tmp_path: Path
) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    Base.metadata.create_all(other)
    source.follow(other)
    with other.connect() as connection, Session(engine) as session:
        # It relates stories, as the flush may too.
        connection.execute(insert(labelled).values(story_id=1, label_id=1))
        event.listen(Story, "before_insert", commit := lambda *_: connection.commit())
        session.add(Story(id=7))
        session.flush()
        event.remove(Story, "before_insert", commit)
        session.rollback()
    other.dispose()

    assert told == ["story-%all"]


def test_a_fault_tells_everything_and_spares_the_commit(
    engine: Engine, source: SQLAlchemySource, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> list[Change]:
        raise ZeroDivisionError

    monkeypatch.setattr(Observer, "changes_of_keys", fail)
    with engine.begin() as connection:
        vote(connection, 1)

    assert told == ["%all"]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT votes FROM st_story WHERE id = 1")) == 1


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_is_deferred_in_an_open_savepoint_shares_its_fate(
    engine: Engine, source: SQLAlchemySource, told: Told, is_kept: bool
) -> None:
    changes = source.changes(Story(id=8))
    assert changes
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        savepoint = session.begin_nested()
        session.execute(text("SELECT 1"))
        source.defer(session, changes)
        savepoint.commit() if is_kept else savepoint.rollback()
        assert told == []
        session.commit()

    assert told == (["story-8"] if is_kept else [])
