"""What docs/sources.md says cannot be detected: that it is so, and where its limits are."""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import peewee
import psycopg
import pytest
from sqlalchemy import ForeignKey, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from grip_edge_middleware import sources
from grip_edge_middleware.changes import Change
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.notes import Notes, current_notes
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources import Observer
from tests.sources.databases import Database

on_postgresql = pytest.mark.parametrize("new_database", ["postgresql"], indirect=True)


class Base(DeclarativeBase):
    pass


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class Comment(Base):
    __tablename__ = "comment"
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"))


class Counter(peewee.Model):
    id = peewee.AutoField()
    name: Any = peewee.CharField()
    value: Any = peewee.IntegerField(default=0)


SETTINGS = {
    "grip_url": "http://pushpin:5561",
    "topics": {
        "post-{id}": {"models": [Post]},
        "comment-{id}": {"models": [Comment]},
        "counter-{name}": {"models": [Counter]},
    },
}


class Edge:
    """What the sources tell."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.observer = Observer.of(Settings.parse(SETTINGS, {}), self.tell, Counts())
        self.sources = sources.connect(self.observer)

    def tell(self, changes: Sequence[Change]) -> None:
        self.told.extend(change.topic.name for change in changes)


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    for source in edge.sources:
        source.disconnect()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    """A session on a database with one post, and one comment on it."""
    Base.metadata.create_all(database.engine)
    with Session(database.engine) as session:
        session.add(Post(id=1, title="one"))
        session.flush()
        session.add(Comment(id=1, post_id=1))
        session.commit()
        yield session


def title(session: Session) -> str:
    """What is committed."""
    session.rollback()
    found: str = session.execute(text("SELECT title FROM post")).scalar_one()
    session.rollback()
    return found


# --- writes -----------------------------------------------------------------------------------


def test_what_a_trigger_writes_is_not_seen(
    session: Session, edge: Edge, database: Database
) -> None:
    write = "UPDATE post SET title = 'two'; "
    if database.kind == "sqlite":
        session.execute(text(f"CREATE TRIGGER t AFTER INSERT ON comment BEGIN {write} END"))
    else:
        body = f"$$ BEGIN {write} RETURN NULL; END $$"
        session.execute(text(f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS {body}"))
        session.execute(text("CREATE TRIGGER t AFTER INSERT ON comment EXECUTE FUNCTION f()"))
    session.commit()
    session.add(Comment(id=2, post_id=1))
    session.commit()

    assert title(session) == "two"
    assert edge.told == ["comment-2"]


@on_postgresql
def test_what_a_function_writes_is_not_seen(session: Session, edge: Edge) -> None:
    body = "UPDATE post SET title = 'two'"
    session.execute(text(f"CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ {body} $$"))
    session.execute(text("SELECT f()"))
    session.commit()

    assert title(session) == "two"
    assert edge.told == []


@on_postgresql
def test_a_procedure_may_write_anything(
    session: Session, edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    body = "UPDATE post SET title = 'two'"
    session.execute(text(f"CREATE PROCEDURE f() LANGUAGE sql AS $$ {body} $$"))
    for _ in range(2):
        session.execute(text("CALL f()"))
        session.commit()

    assert edge.told == ["%all", "%all"]
    assert caplog.text.count("'CALL f()' does not say what it writes") == 1


def test_a_commit_in_words_is_not_seen_with_sqlalchemy(session: Session, edge: Edge) -> None:
    session.get(Post, 1).title = "two"  # type: ignore[union-attr]
    session.flush()
    session.execute(text("COMMIT"))
    session.rollback()

    assert title(session) == "two"
    assert edge.told == []


def test_a_savepoint_in_words_is_told_even_if_undone(session: Session, edge: Edge) -> None:
    session.execute(text("SAVEPOINT one"))
    session.get(Post, 1).title = "two"  # type: ignore[union-attr]
    session.flush()
    session.execute(text("ROLLBACK TO SAVEPOINT one"))
    session.commit()

    assert title(session) == "one"
    assert edge.told == ["post-1"]


def test_another_program_is_not_seen(session: Session, edge: Edge, database: Database) -> None:
    url = database.engine.url
    other: Any = (
        sqlite3.connect(url.database or "")
        if database.kind == "sqlite"
        else psycopg.connect(host=url.host, port=url.port, user=url.username, dbname=url.database)
    )
    other.execute("UPDATE post SET title = 'two'")
    other.commit()
    other.close()

    assert title(session) == "two"
    assert edge.told == []


def test_a_cursor_of_the_driver_is_not_seen(session: Session, edge: Edge) -> None:
    cursor = session.connection().connection.cursor()
    cursor.execute("UPDATE post SET title = 'two'")
    cursor.close()
    session.commit()

    assert title(session) == "two"
    assert edge.told == []


def test_a_cursor_of_peewees_driver_is_not_seen(database: Database, edge: Edge) -> None:
    peewees: Any = database.peewee
    with peewees.bind_ctx([Counter]):
        peewees.create_tables([Counter])
        peewees.cursor().execute("INSERT INTO counter (name, value) VALUES ('a', 1)")

        assert Counter.select().count() == 1
    assert edge.told == []


@on_postgresql
def test_a_drivers_copy_is_not_seen(session: Session, edge: Edge) -> None:
    cursor: Any = session.connection().connection.cursor()
    with cursor.copy("COPY comment (id, post_id) FROM STDIN") as copy:
        copy.write_row((7, 1))
    session.commit()

    assert session.get(Comment, 7) is not None
    assert edge.told == []


def test_a_cascade_that_the_metadata_does_not_name_is_not_seen(
    database: Database, edge: Edge
) -> None:
    if database.kind == "sqlite":
        event.listen(database.engine, "connect", obey_foreign_keys)
    with Session(database.engine) as session:
        session.execute(text("CREATE TABLE post (id int PRIMARY KEY, title text)"))
        rule = "post_id int REFERENCES post (id) ON DELETE CASCADE"
        session.execute(text(f"CREATE TABLE comment (id int PRIMARY KEY, {rule})"))
        session.execute(text("INSERT INTO post VALUES (1, 'one')"))
        session.execute(text("INSERT INTO comment VALUES (1, 1)"))
        session.commit()
        edge.told.clear()
        session.delete(session.get(Post, 1))
        session.commit()
        is_gone = session.execute(text("SELECT count(*) FROM comment")).scalar_one() == 0

    assert is_gone
    assert edge.told == ["post-1"]


def obey_foreign_keys(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA foreign_keys = on")


def test_what_is_suppressed_is_not_told(session: Session, edge: Edge) -> None:
    with edge.observer.suppress():
        session.get(Post, 1).title = "two"  # type: ignore[union-attr]
        session.commit()

    assert edge.told == []


def test_an_older_object_of_peewee_writes_an_old_value_back_unseen(
    database: Database, edge: Edge
) -> None:
    """A save writes all fields, and reads what was there only if its own have changed."""
    with database.peewee.bind_ctx([Counter]):
        database.peewee.create_tables([Counter])
        Counter.create(name="blue")
        old, new = Counter.get(), Counter.get()
        new.name = "red"
        new.save()
        edge.told.clear()
        old.value = 7
        old.save()

        assert Counter.get().name == "blue"
    assert edge.told == ["counter-blue"]


# --- reads ------------------------------------------------------------------------------------


@contextmanager
def view() -> Iterator[Notes]:
    notes = Notes(scopes=Scopes())
    token = current_notes.set(notes)
    try:
        yield notes
    finally:
        current_notes.reset(token)


def read(database: Database) -> None:
    with Session(database.engine) as session:
        session.get(Post, 1)


def test_a_view_is_tagged_with_what_it_reads(
    session: Session, edge: Edge, database: Database
) -> None:
    with view() as notes:
        read(database)

    assert list(notes.rows) == ["%row:post:1"]


def test_an_object_that_a_session_has_is_not_read_again(session: Session, edge: Edge) -> None:
    kept = session.get(Post, 1)
    with view() as notes:
        assert session.get(Post, 1) is kept

    assert list(notes.rows) == []


def test_a_read_by_the_driver_is_not_seen(session: Session, edge: Edge) -> None:
    connection = session.connection().connection
    with view() as notes:
        cursor = connection.cursor()
        cursor.execute("SELECT * FROM post")
        cursor.close()

    assert list(notes.rows) == []


def test_a_thread_of_its_own_reads_unseen(session: Session, edge: Edge, database: Database) -> None:
    with view() as notes:
        thread = threading.Thread(target=read, args=(database,))
        thread.start()
        thread.join()

    assert list(notes.rows) == []


def test_a_thread_with_the_views_context_reads_seen(
    session: Session, edge: Edge, database: Database
) -> None:
    with view() as notes:
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(read, database))
        thread.start()
        thread.join()

    assert list(notes.rows) == ["%row:post:1"]


def test_an_executor_reads_unseen_and_to_thread_seen(
    session: Session, edge: Edge, database: Database
) -> None:
    async def by_executor() -> None:
        await asyncio.get_running_loop().run_in_executor(None, read, database)

    async def by_to_thread() -> None:
        await asyncio.to_thread(read, database)

    seen = []
    for way in (by_executor, by_to_thread):
        with view() as notes:
            asyncio.run(way())
        seen.append(list(notes.rows))

    assert seen == [[], ["%row:post:1"]]
