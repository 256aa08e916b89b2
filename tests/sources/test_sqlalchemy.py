"""Which saves are told, on real SQLite files: what was committed, all of it, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import DDL, Engine, Executable, ForeignKey, create_engine, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    configure_mappers,
    load_only,
    mapped_column,
    relationship,
)

from grip_edge_middleware.changes import Change
from grip_edge_middleware.errors import SettingsError
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.sqlalchemy import SQLAlchemySource
from tests.sources.databases import obey_savepoints


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counter"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    value: Mapped[int] = mapped_column(default=0)
    note: Mapped[str | None]


class Thing(Base):
    __tablename__ = "thing"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "thing"}  # noqa: RUF012


class SpecialThing(Thing):
    __mapper_args__ = {"polymorphic_identity": "special"}  # noqa: RUF012


class Page(Base):
    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]

    @property
    def slug(self) -> str:
        if self.title == "bad":
            raise ZeroDivisionError
        return self.title.lower()


class Auction(Base):
    __tablename__ = "auction"
    id: Mapped[int] = mapped_column(primary_key=True)
    bids: Mapped[list[Bid]] = relationship(cascade="all, delete-orphan", back_populates="auction")


class Bid(Base):
    __tablename__ = "bid"
    id: Mapped[int] = mapped_column(primary_key=True)
    auction_id: Mapped[int] = mapped_column(ForeignKey("auction.id"))
    auction: Mapped[Auction] = relationship(back_populates="bids")


class Told(list[str]):
    """The names of the topics that were told, in order."""

    def tell(self, changes: Any) -> None:
        self.extend(change.topic.name for change in changes)
        self.changes = [*getattr(self, "changes", []), *changes]

    changes: list[Change]

    def take(self) -> list[str]:
        taken = sorted(self)
        self.clear()
        return taken


Watch = Callable[..., Told]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Watch `{template: topic settings}`; return what is told."""
    sources: list[SQLAlchemySource] = []

    def watch(topics: dict[str, Any] | None = None) -> Told:
        topics = topics or {"counter-{name}": {"models": [Counter]}}
        settings = Settings.parse({"grip_url": "http://pushpin:5561", "topics": topics}, {})
        told = Told()
        sources.append(SQLAlchemySource(Observer.of(settings, told.tell, Counts())))
        return told

    yield watch
    for source in sources:
        source.disconnect()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    obey_savepoints(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def add(engine: Engine, *names: str) -> None:
    with Session(engine) as session:
        session.add_all(Counter(name=name) for name in names)
        session.commit()


def find(session: Session, name: str) -> Counter:
    return session.query(Counter).filter_by(name=name).one()


# --- saves ------------------------------------------------------------------------------------


def test_an_insert_is_told_after_its_commit(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Counter(name="blue"))
        session.flush()
        assert told == []
        session.commit()

    assert told == ["counter-blue"]


def test_an_update_is_told(engine: Engine, watch: Watch) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        find(session, "blue").value = 7
        session.commit()

    assert told == ["counter-blue"]


def test_an_update_by_an_expression_is_told(engine: Engine, watch: Watch) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        counter = find(session, "blue")
        counter.value = Counter.value + 1
        session.commit()

    assert told == ["counter-blue"]


def test_a_delete_is_told(engine: Engine, watch: Watch) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        session.delete(find(session, "blue"))
        session.commit()

    assert told == ["counter-blue"]


@pytest.mark.parametrize("is_expired", [False, True])
def test_a_save_that_changes_nothing_is_not_told(
    engine: Engine, watch: Watch, is_expired: bool
) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        counter = find(session, "blue")
        if is_expired:
            session.expire(counter)
        counter.value = counter.value
        session.commit()

    assert told == []


def test_reading_is_not_told(engine: Engine, watch: Watch) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        find(session, "blue")
        session.commit()

    assert told == []


@pytest.mark.parametrize("is_expired", [False, True])
def test_an_object_that_moves_leaves_one_topic_and_enters_another(
    engine: Engine, watch: Watch, is_expired: bool
) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        counter = find(session, "blue")
        if is_expired:
            session.commit()
        counter.name = "red"
        session.commit()

    assert told.take() == ["counter-blue", "counter-red"]


def test_an_object_moves_by_an_attribute_that_was_never_loaded(
    engine: Engine, watch: Watch
) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        counter = session.query(Counter).options(load_only(Counter.value)).one()
        counter.name = "red"
        session.commit()

    assert told.take() == ["counter-blue", "counter-red"]


def test_a_detached_object_can_be_changed_and_moves_when_it_is_saved(
    engine: Engine, watch: Watch
) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        counter = find(session, "blue")
        session.commit()
    counter.name = "red"
    assert told == []
    with Session(engine) as session:
        session.add(counter)
        session.commit()

    assert told.take() == ["counter-blue", "counter-red"]


def test_an_object_that_moves_twice_is_told_everywhere(engine: Engine, watch: Watch) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        counter = find(session, "blue")
        for name in ("red", "green"):
            counter.name = name
            session.flush()
        session.commit()

    assert set(told) == {"counter-blue", "counter-red", "counter-green"}


def test_a_moved_object_that_is_deleted_leaves_its_old_topic(engine: Engine, watch: Watch) -> None:
    add(engine, "blue")
    told = watch()
    with Session(engine) as session:
        counter = find(session, "blue")
        counter.name = "red"
        session.delete(counter)
        session.commit()

    assert "counter-blue" in told


def test_an_orphan_that_is_deleted_is_told(engine: Engine, watch: Watch) -> None:
    told = watch({"bid-{id}": {"models": [Bid]}})
    with Session(engine) as session:
        auction = Auction(id=1, bids=[Bid(id=5)])
        session.add(auction)
        session.commit()
        told.clear()
        auction.bids.clear()
        session.commit()

    assert told == ["bid-5"]


def test_a_topic_without_parameters_is_told(engine: Engine, watch: Watch) -> None:
    told = watch({"counters": {"models": [Counter]}})

    add(engine, "blue")

    assert told == ["counters"]


def test_an_attribute_without_a_value_tells_nothing(engine: Engine, watch: Watch) -> None:
    told = watch({"note-{note}": {"models": [Counter]}})

    add(engine, "blue")

    assert told == []


def test_an_unwatched_model_is_not_told(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Thing(name="x"))
        session.commit()

    assert told == []


# --- transactions -----------------------------------------------------------------------------


def test_a_rollback_forgets_the_change(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Counter(name="blue"))
        session.flush()
        session.rollback()
        session.add(Counter(name="red"))
        session.commit()

    assert told == ["counter-red"]


def test_a_session_closed_without_commit_forgets_the_change(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Counter(name="blue"))
        session.flush()
    add(engine, "red")

    assert told == ["counter-red"]


def test_a_rolled_back_savepoint_forgets_only_its_own(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Counter(name="before"))
        savepoint = session.begin_nested()
        session.add(Counter(name="inside"))
        session.flush()
        savepoint.rollback()
        session.add(Counter(name="after"))
        session.commit()

    assert told.take() == ["counter-after", "counter-before"]


def test_a_released_savepoint_is_told_only_after_the_commit(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        with session.begin_nested():
            session.add(Counter(name="inside"))
        assert told == []
        session.commit()

    assert told == ["counter-inside"]


def test_a_released_savepoint_is_forgotten_with_its_transaction(
    engine: Engine, watch: Watch
) -> None:
    told = watch()
    with Session(engine) as session:
        with session.begin_nested():
            session.add(Counter(name="inside"))
        session.rollback()

    assert told == []


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("commit", "commit", ["counter-inner", "counter-outer"]),
        ("commit", "rollback", ["counter-outer"]),
        ("rollback", "commit", []),
        ("rollback", "rollback", []),
    ],
)
def test_nested_savepoints(
    engine: Engine, watch: Watch, outer: str, inner: str, expected: list[str]
) -> None:
    told = watch()
    with Session(engine) as session:
        first = session.begin_nested()
        session.add(Counter(name="outer"))
        second = session.begin_nested()
        session.add(Counter(name="inner"))
        session.flush()
        getattr(second, inner)()
        getattr(first, outer)()
        session.commit()

    assert told.take() == expected


@pytest.mark.parametrize("mode", ["conditional_savepoint", "rollback_only", "create_savepoint"])
@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_session_joined_to_a_transaction_is_told_by_its_outcome(
    engine: Engine, watch: Watch, mode: Any, outcome: str
) -> None:
    told = watch()
    with engine.connect() as connection:
        transaction = connection.begin()
        with Session(bind=connection, join_transaction_mode=mode) as session:
            session.add(Counter(name="blue"))
            session.commit()
            assert told == []
        getattr(transaction, outcome)()

    assert told == (["counter-blue"] if outcome == "commit" else [])


def test_a_savepoint_older_than_the_first_session_is_followed_too(
    engine: Engine, watch: Watch
) -> None:
    """The engine is met only now, with a savepoint already open."""
    told = watch()
    with engine.connect() as connection, connection.begin():
        savepoint = connection.begin_nested()
        with Session(bind=connection, join_transaction_mode="rollback_only") as session:
            session.add(Counter(name="blue"))
            session.flush()
        savepoint.rollback()

    assert told == []


def test_a_failing_flush_tells_nothing(engine: Engine, watch: Watch) -> None:
    told = watch()
    with Session(engine) as session:
        session.add(Counter(id=1, name="blue"))
        session.flush()
        session.add(Thing(id=1, name="one"))
        session.flush()
        session.execute(text("insert into thing (id, kind, name) values (2, 'thing', 'x')"))
        session.expunge_all()
        session.add(Counter(id=1, name="twin"))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()

    assert told == []


def test_a_commit_of_unknown_outcome_is_told(engine: Engine, watch: Watch) -> None:
    """A purge too many is harmless, one too few is not."""

    class LostError(Exception):
        pass

    original = engine.dialect.do_commit

    def commit_and_lose_the_connection(connection: Any) -> None:
        original(connection)
        raise LostError

    engine.dialect.do_commit = commit_and_lose_the_connection  # type: ignore[method-assign, assignment]
    told = watch()
    with Session(engine) as session:
        session.add(Counter(name="blue"))
        with pytest.raises(LostError):
            session.commit()

    assert told == ["counter-blue"]


def test_autocommit_is_told_whatever_the_session_does_then(tmp_path: Path, watch: Watch) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/auto.db", isolation_level="AUTOCOMMIT")
    Base.metadata.create_all(engine)
    told = watch()
    with Session(engine) as session:
        session.add(Counter(name="blue"))
        session.flush()
        session.rollback()
        assert session.query(Counter).count() == 1

    engine.dispose()
    assert told == ["counter-blue"]


def test_two_engines_are_told_apart(engine: Engine, tmp_path: Path, watch: Watch) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    Base.metadata.create_all(other)
    told = watch()
    with Session(engine) as one, Session(other) as two:
        one.add(Counter(name="one"))
        two.add(Counter(name="two"))
        one.flush()
        two.flush()
        one.rollback()
        two.commit()

    other.dispose()
    assert told == ["counter-two"]


def test_one_session_on_two_engines_tells_both(
    engine: Engine, tmp_path: Path, watch: Watch
) -> None:
    other = create_engine(f"sqlite:///{tmp_path}/other.db")
    Base.metadata.create_all(other)
    told = watch({"counter-{name}": {"models": [Counter]}, "thing-{name}": {"models": [Thing]}})
    with Session(binds={Counter: engine, Thing: other}) as session:
        session.add_all([Counter(name="one"), Thing(name="two")])
        session.commit()

    other.dispose()
    assert told.take() == ["counter-one", "thing-two"]


def test_two_edges_are_both_told(engine: Engine, watch: Watch) -> None:
    one, other = watch(), watch({"counters": {"models": [Counter]}})

    add(engine, "blue")

    assert (one, other) == (["counter-blue"], ["counters"])


def test_a_disconnected_source_is_told_nothing_more(engine: Engine) -> None:
    settings = Settings.parse({"topics": {"counters": {"models": [Counter]}}}, {})
    told = Told()
    source = SQLAlchemySource(Observer.of(settings, told.tell, Counts()))
    add(engine, "blue")
    source.disconnect()
    add(engine, "red")

    assert told == ["counters"]


def test_many_threads_are_all_told(engine: Engine, watch: Watch) -> None:
    told = watch()
    lock = threading.Lock()  # SQLite writes one at a time

    def save(thread: int) -> None:
        for number in range(10):
            with lock:
                add(engine, f"{thread}-{number}")

    threads = [threading.Thread(target=save, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(told) == sorted(f"counter-{t}-{n}" for t in range(8) for n in range(10))


# --- asynchronous -----------------------------------------------------------------------------


def run_async(tmp_path: Path, save: Callable[[AsyncEngine], Any]) -> None:
    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.db")
        obey_savepoints(engine.sync_engine)
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        try:
            await save(engine)
        finally:
            await engine.dispose()

    asyncio.run(main())


def test_an_async_session_is_told_after_its_commit(tmp_path: Path, watch: Watch) -> None:
    told = watch()

    async def save(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            counter = Counter(name="blue")
            session.add(counter)
            await session.flush()
            assert told == []
            await session.commit()
            assert told.take() == ["counter-blue"]
            await session.refresh(counter)
            counter.name = "red"
            await session.commit()
            assert told.take() == ["counter-blue", "counter-red"]
            await session.refresh(counter)
            counter.value = Counter.value + 1
            await session.commit()
            assert told.take() == ["counter-red"]
            await session.delete(counter)
            await session.commit()

    run_async(tmp_path, save)
    assert told == ["counter-red"]


def test_an_expired_object_of_an_async_session_can_be_moved(tmp_path: Path, watch: Watch) -> None:
    """To load the old value on the set would be I/O where none can be awaited."""
    told = watch()

    async def save(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            counter = Counter(name="blue")
            session.add(counter)
            await session.commit()
            told.clear()
            counter.name = "red"
            await session.commit()

    run_async(tmp_path, save)
    assert told.take() == ["counter-blue", "counter-red"]


def test_an_async_rollback_forgets_the_change(tmp_path: Path, watch: Watch) -> None:
    told = watch()

    async def save(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            session.add(Counter(name="rolled back"))
            await session.flush()
            await session.rollback()
        async with AsyncSession(engine) as session:
            session.add(Counter(name="closed"))
            await session.flush()

    run_async(tmp_path, save)
    assert told == []


def test_async_savepoints_are_followed(tmp_path: Path, watch: Watch) -> None:
    told = watch()

    async def save(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            session.add(Counter(name="outer"))
            async with session.begin_nested():
                session.add(Counter(name="released"))
            savepoint = await session.begin_nested()
            session.add(Counter(name="inner"))
            await session.flush()
            await savepoint.rollback()
            assert told == []
            await session.commit()

    run_async(tmp_path, save)
    assert told.take() == ["counter-outer", "counter-released"]


def test_an_async_session_joined_to_a_transaction_is_told_by_its_outcome(
    tmp_path: Path, watch: Watch
) -> None:
    told = watch()

    async def save(engine: AsyncEngine) -> None:
        for outcome in ("rollback", "commit"):
            async with engine.connect() as connection:
                transaction = await connection.begin()
                async with AsyncSession(
                    bind=connection, join_transaction_mode="create_savepoint"
                ) as session:
                    session.add(Counter(name=outcome))
                    await session.commit()
                assert told == []
                await getattr(transaction, outcome)()

    run_async(tmp_path, save)
    assert told == ["counter-commit"]


# --- Flask-SQLAlchemy -------------------------------------------------------------------------


def test_flask_sqlalchemy_is_told(tmp_path: Path, watch: Watch) -> None:
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/flask.db"
    db = SQLAlchemy()
    db.init_app(app)

    class Page(db.Model):  # type: ignore[name-defined, misc]
        id: Mapped[int] = mapped_column(primary_key=True)
        slug: Mapped[str]

    told = watch({"page-{slug}": {"models": [Page]}})
    with app.app_context():
        db.create_all()
        db.session.add(Page(slug="home"))
        db.session.commit()
        db.session.add(Page(slug="draft"))
        db.session.flush()
        db.session.rollback()
        db.engine.dispose()

    assert told == ["page-home"]


# --- which models -----------------------------------------------------------------------------


def test_a_subclass_of_a_watched_class_is_told(engine: Engine, watch: Watch) -> None:
    told = watch({"thing-{name}": {"models": [Thing]}})
    with Session(engine) as session:
        session.add(SpecialThing(name="x"))
        session.commit()

    assert told == ["thing-x"]


def test_a_subclass_that_moves_leaves_its_old_topic(engine: Engine, watch: Watch) -> None:
    """Its mapper was configured before anybody watched."""
    configure_mappers()
    told = watch({"thing-{name}": {"models": [Thing]}})
    with Session(engine) as session:
        thing = SpecialThing(name="old")
        session.add(thing)
        session.commit()
        told.clear()
        thing.name = "new"  # the old value is expired
        session.commit()

    assert told.take() == ["thing-new", "thing-old"]


def test_a_dotted_path_names_a_class(engine: Engine, watch: Watch) -> None:
    told = watch({"counter-{name}": {"models": [f"{__name__}:Counter"]}})

    add(engine, "blue")

    assert told == ["counter-blue"]


@pytest.fixture
def shop() -> Iterator[ModuleType]:
    """A module that re-exports a model."""
    module = ModuleType("shop_models")
    sys.modules["shop_models"] = module
    yield module
    del sys.modules["shop_models"]


def test_a_dotted_path_names_a_class_that_is_defined_elsewhere(
    engine: Engine, watch: Watch, shop: ModuleType
) -> None:
    shop.Counter = Counter  # type: ignore[attr-defined]
    told = watch({"counter-{name}": {"models": ["shop_models:Counter"]}})

    add(engine, "blue")

    assert told == ["counter-blue"]


def test_a_class_that_is_re_exported_only_after_a_save_is_told_from_then_on(
    engine: Engine, watch: Watch, shop: ModuleType
) -> None:
    told = watch({"counter-{name}": {"models": ["shop_models:Counter"]}})
    add(engine, "too early")
    shop.Counter = Counter  # type: ignore[attr-defined]
    add(engine, "blue")

    assert told == ["counter-blue"]


def test_a_path_that_names_nothing_is_logged_once(
    engine: Engine, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    watch({"counter-{name}": {"models": ["nowhere.models:Counter"]}})
    add(engine, "a")
    add(engine, "b")

    lines = [record for record in caplog.records if "nowhere.models:Counter" in record.getMessage()]
    assert [record.levelno for record in lines] == [logging.ERROR]


def test_a_class_without_the_attribute_is_a_settings_error(watch: Watch) -> None:
    with pytest.raises(SettingsError, match="Counter has no attribute 'slug'"):
        watch({"counter-{slug}": {"models": [Counter]}})


# --- options ----------------------------------------------------------------------------------


def test_on_chooses_operations(engine: Engine, watch: Watch) -> None:
    told = watch({"counter-{name}": {"models": [{"model": Counter, "on": ["delete"]}]}})
    add(engine, "blue")
    with Session(engine) as session:
        counter = find(session, "blue")
        counter.value = 5
        session.commit()
        assert told == []
        session.delete(counter)
        session.commit()

    assert told == ["counter-blue"]


def test_when_chooses_instances(engine: Engine, watch: Watch) -> None:
    model = {"model": Counter, "when": lambda counter: counter.name != "draft"}
    told = watch({"counter-{name}": {"models": [model]}})

    add(engine, "draft", "blue")

    assert told == ["counter-blue"]


def test_params_name_other_attributes(engine: Engine, watch: Watch) -> None:
    told = watch({"auction-{id}": {"models": [{"model": Bid, "params": {"id": "auction_id"}}]}})
    with Session(engine) as session:
        session.add(Auction(id=7, bids=[Bid(id=1), Bid(id=2)]))
        session.commit()

    assert set(told) == {"auction-7"}


def test_a_payload_is_made_from_the_instance(engine: Engine, watch: Watch) -> None:
    topic = {"models": [Counter], "hold": "stream", "payload": lambda c: {"name": c.name}}
    told = watch({"counter-{name}": topic})

    add(engine, "blue")

    [change] = told.changes
    assert change.message is not None
    assert change.message["stream"].body == b'data: {"name":"blue"}\n\n'


def test_a_payload_reads_a_value_that_the_database_computed(engine: Engine, watch: Watch) -> None:
    add(engine, "blue")
    told = watch({"counter-{name}": {"models": [Counter], "payload": lambda c: str(c.value)}})
    with Session(engine) as session:
        find(session, "blue").value = Counter.value + 1
        session.commit()

    [change] = told.changes
    assert change.message is not None
    assert change.message["stream"].body == b"1"


@pytest.mark.parametrize("option", ["payload", "when"])
def test_a_fault_in_a_callable_does_not_break_the_commit(
    engine: Engine, watch: Watch, option: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(counter: Counter) -> str:
        raise ZeroDivisionError

    watch(topic_with(option, broken))

    add(engine, "blue")

    with Session(engine) as session:
        assert session.query(Counter).count() == 1
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("option", ["payload", "when"])
def test_a_fault_in_a_callable_loses_no_other_change(
    engine: Engine, watch: Watch, option: str
) -> None:
    def broken(counter: Counter) -> str:
        if counter.name == "bad":
            raise ZeroDivisionError
        return "x"

    told = watch({**topic_with(option, broken), "counters": {"models": [Counter]}})

    add(engine, "a", "bad", "z")

    assert told.take() == ["counter-a", "counter-bad", "counter-z", "counters"]


def test_an_attribute_that_raises_changes_all_topics_and_loses_no_other(
    engine: Engine, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    told = watch({"page-{slug}": {"models": [Page]}})
    with Session(engine) as session:
        session.add_all(Page(title=title) for title in ("A", "bad", "Z"))
        session.commit()

    assert told.take() == ["page-%all", "page-a", "page-z"]
    assert "a save of Page was not understood" in caplog.text


def topic_with(option: str, function: Callable[[Counter], str]) -> dict[str, Any]:
    if option == "payload":
        return {"counter-{name}": {"models": [Counter], "payload": function}}
    return {"counter-{name}": {"models": [{"model": Counter, "when": function}]}}


def test_a_fault_in_a_payload_still_purges_its_topic(engine: Engine, watch: Watch) -> None:
    """Nothing old stays: the page is stale, whether or not its message can be made."""

    def broken(counter: Counter) -> str:
        raise ZeroDivisionError

    told = watch(topic_with("payload", broken))

    add(engine, "blue")

    assert told == ["counter-blue"]


# --- statements that do not say what they are -------------------------------------------------


def renames(returning: bool = False) -> str:
    return "UPDATE counter SET name = name || 'x'" + " RETURNING id" * returning


@pytest.mark.parametrize(
    "statement",
    [
        text(renames(returning=True)).columns(Counter.id),
        select(Counter).from_statement(text(renames(returning=True)).columns(Counter.id)),
        DDL(renames()),  # type: ignore[no-untyped-call]
        insert(Counter).prefix_with("OR REPLACE").values(id=1, name="red"),
    ],
    ids=["text with columns", "from_statement", "DDL", "prefix"],
)
def test_whatever_writes_is_seen_by_its_text(
    engine: Engine, watch: Watch, statement: Executable
) -> None:
    add(engine, "blue")
    told = watch({"counter-{name}": {"models": [{"model": Counter, "on": ["update"]}]}})
    with Session(engine) as session:
        session.execute(statement).all() if "RETURNING" in str(statement) else session.execute(
            statement
        )
        session.commit()

    assert told == ["counter-%all"]
