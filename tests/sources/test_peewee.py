"""Which saves through peewee are told, on real databases: what was committed, and nothing else."""

# mypy: allow-untyped-calls

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from peewee import (
    AutoField,
    CharField,
    CompositeKey,
    DatabaseProxy,
    ForeignKeyField,
    IntegerField,
    IntegrityError,
    ManyToManyField,
    Model,
    OperationalError,
    SqliteDatabase,
    UUIDField,
    fn,
)
from playhouse.pool import PooledSqliteDatabase
from playhouse.pwasyncio import AsyncPostgresqlDatabase, AsyncSqliteDatabase

from grip_edge_middleware.changes import Change
from grip_edge_middleware.errors import SettingsError
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.notes import Notes, current_notes
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.peewee import PeeweeSource, saves
from tests.sources.databases import Database as Databases
from tests.sources.postgres import Postgres

Database = Any  # its methods have no types


class Counter(Model):
    id = AutoField()
    name: Any = CharField(unique=True)
    value: Any = IntegerField(default=0)
    note = CharField(null=True)

    @property
    def slug(self) -> str:
        if self.name == "bad":
            raise ZeroDivisionError
        return str(self.name).lower()


class DirtyCounter(Model):
    name = CharField()
    value = IntegerField(default=0)

    class Meta:
        only_save_dirty = True


class OtherCounter(Model):
    """The counters once more, as a part of an app that nobody watches has them."""

    name = CharField()

    class Meta:
        table_name = "counter"


class Folder(Model):
    parent: Any = ForeignKeyField("self", null=True, backref="children")
    name = CharField()


class Auction(Model):
    id = AutoField()
    name = CharField()


class Bid(Model):
    id = AutoField()
    auction: Any = ForeignKeyField(Auction, backref="bids", on_delete="CASCADE")
    price = IntegerField()


class Note(Model):
    id = AutoField()
    auction: Any = ForeignKeyField(Auction, null=True)
    text = CharField()


class Tag(Model):
    id = AutoField()
    name = CharField()


class Post(Model):
    id = AutoField()
    title = CharField()
    author_id = IntegerField(default=1)
    tags = ManyToManyField(Tag, backref="posts")


PostTag = Post.tags.get_through_model()


class Place(Model):
    row = IntegerField()
    seat = IntegerField()
    guest = CharField()

    class Meta:
        primary_key = CompositeKey("row", "seat")


class Ticket(Model):
    id = UUIDField(primary_key=True)
    holder = CharField()


MODELS = [Counter, DirtyCounter, Folder, Auction, Bid, Note, Tag, Post, PostTag, Place, Ticket]


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


@pytest.fixture(autouse=True)
def no_fault(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What fails counts as changed, which could hide that it fails."""
    yield
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.fixture
def sources() -> Iterator[list[PeeweeSource]]:
    sources: list[PeeweeSource] = []
    yield sources
    for source in sources:
        source.disconnect()


@pytest.fixture
def watch(sources: list[PeeweeSource]) -> Watch:
    """Watch `{template: topic settings}`; return what is told."""

    def watch(topics: dict[str, Any] | None = None, **more: Any) -> Told:
        topics = topics or {"counter-{name}": {"models": [Counter]}}
        settings = {"grip_url": "http://pushpin:5561", "topics": topics, **more}
        told = Told()
        observer = Observer.of(Settings.parse(settings, {}), told.tell, Counts())
        sources.append(PeeweeSource(observer))
        return told

    return watch


@pytest.fixture
def db(database: Databases) -> Iterator[Database]:
    if isinstance(database.peewee, SqliteDatabase):
        database.peewee.pragma("synchronous", "off", permanent=True)
    with database.peewee.bind_ctx(MODELS):
        database.peewee.create_tables(MODELS)
        yield database.peewee


# --- the matrix -------------------------------------------------------------------------------

ALL = "counter-%all"


@dataclass(frozen=True)
class Way:
    """A way of writing, of the counters blue and green, and the topics that it changes."""

    name: str
    write: Callable[[Database], Any]
    topics: tuple[str, ...] = (ALL,)
    begins: bool = False
    """Whether it begins a transaction itself, which peewee refuses in manual mode."""


def rename(database: Database) -> None:
    counter = find("blue")
    counter.name = "red"
    counter.save()


def save(database: Database) -> None:
    counter = find("blue")
    counter.value = 7
    counter.save()


def save_an_expression(database: Database) -> None:
    counter = find("blue")
    counter.value = Counter.value + 1
    counter.save()


def rename_by_an_expression(database: Database) -> None:
    counter = find("blue")
    counter.name = fn.UPPER(Counter.name)
    counter.save()


def save_without_loading(database: Database) -> None:
    Counter(id=find("blue").id, name="red").save()


def save_in_part(database: Database) -> None:
    counter = Counter.select(Counter.id, Counter.value).where(Counter.name == "blue").get()
    counter.value = 7
    counter.save()


def save_only(database: Database) -> None:
    counter = find("blue")
    counter.value = 7
    counter.save(only=[Counter.value])


def delete_in_part(database: Database) -> None:
    Counter.select(Counter.id).where(Counter.name == "blue").get().delete_instance()


def delete_after_a_change(database: Database) -> None:
    counter = find("blue")
    counter.name = "red"
    counter.delete_instance()


def bulk_update(database: Database) -> None:
    counter = find("blue")
    counter.value = 7
    Counter.bulk_update([counter], [Counter.value])


def upsert(database: Database) -> None:
    query = Counter.insert(name="blue", value=7)
    query.on_conflict(conflict_target=[Counter.name], update={Counter.value: 7}).execute()


def insert_from(database: Database) -> None:
    query = Counter.select(Counter.name.concat("er"), Counter.value)
    Counter.insert_from(query, [Counter.name, Counter.value]).execute()


def mark(database: Database) -> str:
    return "?" if isinstance(database, SqliteDatabase) else "%s"


def raw(database: Database) -> None:
    sql = f"UPDATE counter SET value = {mark(database)} WHERE name = 'blue'"
    database.execute_sql(sql, (7,))


def raw_query(database: Database) -> None:
    Counter.raw(f"DELETE FROM counter WHERE name = {mark(database)}", "blue").execute()


def returning(database: Database) -> None:
    list(Counter.update(value=7).where(Counter.name == "blue").returning(Counter.id).execute())


def batches(database: Database) -> None:
    Counter.bulk_create([Counter(name=str(n)) for n in range(3)], batch_size=1)


def through_another_model(database: Database) -> None:
    OtherCounter.bind(database)
    counter = OtherCounter.get(OtherCounter.name == "blue")
    counter.name = "red"
    counter.save()


WAYS = [
    Way("save a new one", lambda _: Counter(name="red").save(), ("counter-red",)),
    Way("create", lambda _: Counter.create(name="red"), ("counter-red",)),
    Way("get_or_create", lambda _: Counter.get_or_create(name="red"), ("counter-red",), True),
    Way("get_or_create of one there is", lambda _: Counter.get_or_create(name="blue"), ()),
    Way("save", save, ("counter-blue",)),
    Way("rename", rename, ("counter-blue", "counter-red")),
    Way("save an expression", save_an_expression, ("counter-blue",)),
    Way("rename by an expression", rename_by_an_expression, ("counter-BLUE", "counter-blue")),
    Way("save without loading", save_without_loading, ("counter-blue", "counter-red")),
    Way("save in part", save_in_part, ("counter-blue",)),
    Way("save only", save_only, ("counter-blue",)),
    Way("delete_instance", lambda _: find("blue").delete_instance(), ("counter-blue",)),
    Way("delete_instance in part", delete_in_part, ("counter-blue",)),
    Way("delete_instance after a change", delete_after_a_change, ("counter-blue",)),
    Way("a save of no row", lambda _: Counter(id=0, name="none").save(), ()),
    Way("a delete of no row", lambda _: Counter(id=0, name="none").delete_instance(), ()),
    Way("insert", lambda _: Counter.insert(name="red").execute()),
    Way("insert_many", lambda _: Counter.insert_many([{"name": "red"}]).execute()),
    Way("insert_from", insert_from),
    Way("on_conflict", upsert),
    Way("on_conflict_ignore", lambda _: Counter.insert(name="x").on_conflict_ignore().execute()),
    Way("update", lambda _: Counter.update(value=7).execute()),
    Way("update of no row", lambda _: Counter.update(value=7).where(Counter.id == 0).execute(), ()),
    Way("update, returning", returning),
    Way("set_by_id", lambda _: Counter.set_by_id(find("blue").id, {"value": 7})),
    Way("delete", lambda _: Counter.delete().where(Counter.name == "blue").execute()),
    Way("delete_by_id", lambda _: Counter.delete_by_id(find("blue").id)),
    Way("bulk_create", lambda _: Counter.bulk_create([Counter(name="red")])),
    Way("bulk_create in batches", batches),
    Way("bulk_update", bulk_update),
    Way("truncate_table", lambda _: Counter.truncate_table()),
    Way("raw SQL", raw),
    Way("a raw query", raw_query),
    Way("another model of the table", through_another_model),
]


def commit(database: Database, write: Callable[[Database], Any]) -> None:
    with database.atomic():
        write(database)


def roll_back(database: Database, write: Callable[[Database], Any]) -> None:
    with suppress(ZeroDivisionError), database.atomic():
        write(database)
        raise ZeroDivisionError


def roll_back_by_hand(database: Database, write: Callable[[Database], Any]) -> None:
    with database.atomic() as transaction:
        write(database)
        transaction.rollback()


def release_a_savepoint(database: Database, write: Callable[[Database], Any]) -> None:
    with database.atomic(), database.atomic():
        write(database)


def roll_back_a_savepoint(database: Database, write: Callable[[Database], Any]) -> None:
    with database.atomic():
        roll_back(database, write)


def roll_back_around_a_savepoint(database: Database, write: Callable[[Database], Any]) -> None:
    roll_back(database, lambda database: commit(database, write))


def write_at_once(database: Database, write: Callable[[Database], Any]) -> None:
    write(database)


def commit_by_hand(database: Database, write: Callable[[Database], Any]) -> None:
    with database.manual_commit():
        database.begin()
        write(database)
        database.commit()


def roll_back_in_manual_mode(database: Database, write: Callable[[Database], Any]) -> None:
    with database.manual_commit():
        database.begin()
        write(database)
        database.rollback()


def write_at_once_in_manual_mode(database: Database, write: Callable[[Database], Any]) -> None:
    with database.manual_commit():
        write(database)


def commit_a_session(database: Database, write: Callable[[Database], Any]) -> None:
    database.session_start()
    write(database)
    database.session_commit()


def roll_back_a_session(database: Database, write: Callable[[Database], Any]) -> None:
    database.session_start()
    write(database)
    database.session_rollback()


def commit_in_words(database: Database, write: Callable[[Database], Any]) -> None:
    with database.manual_commit():
        database.execute_sql("BEGIN")
        database.execute_sql("SAVEPOINT one")
        write(database)
        database.execute_sql('RELEASE "one"')
        database.execute_sql("COMMIT")


def roll_back_in_words(database: Database, write: Callable[[Database], Any]) -> None:
    with database.manual_commit():
        database.execute_sql("BEGIN")
        database.execute_sql("SAVEPOINT one")
        write(database)
        database.execute_sql('ROLLBACK TO "one"')
        database.execute_sql("COMMIT")


LASTING = [
    commit,
    release_a_savepoint,
    write_at_once,
    commit_by_hand,
    write_at_once_in_manual_mode,
    commit_a_session,
    commit_in_words,
]
UNDONE = [
    roll_back,
    roll_back_by_hand,
    roll_back_a_savepoint,
    roll_back_around_a_savepoint,
    roll_back_in_manual_mode,
    roll_back_a_session,
    roll_back_in_words,
]

MANUAL = [
    commit_by_hand,
    write_at_once_in_manual_mode,
    commit_in_words,
    roll_back_in_manual_mode,
    roll_back_in_words,
]

each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)


@each_way
def test_what_is_committed_is_told_once_and_what_is_undone_never(
    db: Database, watch: Watch, way: Way
) -> None:
    seen = {}
    ends = [end for end in (*LASTING, *UNDONE) if not way.begins or end not in MANUAL]
    for end in ends:
        with fresh(db):
            told = watch()
            end(db, way.write)
            seen[end.__name__] = told.take()
    once = {end.__name__: sorted(way.topics) for end in ends if end in LASTING}
    never: dict[str, list[str]] = {end.__name__: [] for end in ends if end in UNDONE}
    if way.name == "bulk_create in batches":
        # Each batch is a transaction of its own there.
        once |= {n: [ALL] * 3 for n in ("write_at_once", "write_at_once_in_manual_mode")}

    assert seen == once | never


@each_way
def test_nothing_is_told_before_the_commit(db: Database, watch: Watch, way: Way) -> None:
    with fresh(db):
        told = watch()
        with db.atomic(), db.atomic():
            way.write(db)

            assert told == []


@contextmanager
def fresh(database: Database) -> Iterator[None]:
    """Begin with the counters blue and green, and nothing else."""
    Counter.delete().execute()
    add("blue", "green")
    yield


def add(*names: str) -> None:
    Counter.insert_many([{"name": name} for name in names]).execute()


def find(name: str) -> Counter:
    found: Counter = Counter.get(Counter.name == name)
    return found


# --- transactions -----------------------------------------------------------------------------


def test_a_savepoints_rollback_keeps_what_came_before_it(db: Database, watch: Watch) -> None:
    told = watch()
    with db.atomic():
        Counter.create(name="before")
        with db.atomic() as savepoint:
            Counter.create(name="undone")
            savepoint.rollback()
            Counter.create(name="again")
        Counter.create(name="after")

    assert told == ["counter-before", "counter-again", "counter-after"]


def test_what_is_undone_by_an_inner_transaction_is_not_told(db: Database, watch: Watch) -> None:
    told = watch()
    with db.transaction() as outer:
        Counter.create(name="undone")
        with db.transaction():
            Counter.create(name="inner")
        outer.rollback()
        Counter.create(name="after")

    assert told == ["counter-after"]


def test_a_commit_in_the_middle_tells_what_came_before_it(db: Database, watch: Watch) -> None:
    told = watch()
    with suppress(ZeroDivisionError), db.atomic() as transaction:
        Counter.create(name="before")
        transaction.commit()
        Counter.create(name="after")
        raise ZeroDivisionError

    assert told == ["counter-before"]


def test_a_statement_that_fails_changes_nothing(db: Database, watch: Watch) -> None:
    add("blue")
    told = watch()
    with pytest.raises(IntegrityError):
        Counter.create(name="blue")

    assert told == []


class LosesItsConnection(SqliteDatabase):
    """Cannot tell whether a COMMIT was made."""

    def commit(self) -> None:
        super().commit()
        raise OperationalError("the server has gone away")


def test_a_commit_that_raises_counts_as_made(tmp_path: Path, watch: Watch) -> None:
    database = LosesItsConnection(str(tmp_path / "test.db"))
    with database.bind_ctx([Counter]), database.connection_context():
        database.create_tables([Counter])
        told = watch()
        with pytest.raises(OperationalError), database.atomic():
            Counter.create(name="blue")

    assert told == ["counter-blue"]


def test_a_commit_that_is_tried_again_is_told_again(tmp_path: Path, watch: Watch) -> None:
    """What was told after the first try may have been cached anew before the second."""
    database = SqliteDatabase(str(tmp_path / "test.db"), timeout=0)
    with database.bind_ctx([Counter]), database.connection_context():
        database.create_tables([Counter])
        told = watch()
        reader = SqliteDatabase(str(tmp_path / "test.db"), timeout=0)
        with reader.connection_context():
            reader.begin()
            reader.execute_sql("SELECT * FROM counter").fetchall()
            with database.manual_commit():
                database.begin()
                Counter.create(name="blue")
                with pytest.raises(OperationalError):
                    database.commit()
                first = told.take()
                reader.rollback()
                database.commit()

    assert (first, told) == (["counter-blue"], ["counter-blue"])


def test_threads_have_transactions_of_their_own(db: Database, watch: Watch) -> None:
    told = watch()

    def write() -> None:
        with db.connection_context(), db.atomic():
            Counter.create(name="theirs")

    with db.atomic():
        thread = threading.Thread(target=write)
        if isinstance(db, SqliteDatabase):
            db.commit()  # one may write at a time
        thread.start()
        thread.join()
        assert told.take() == ["counter-theirs"]
        if isinstance(db, SqliteDatabase):
            db.begin()
        Counter.create(name="ours")

    assert told == ["counter-ours"]


def test_what_was_open_on_a_lost_connection_is_not_told_with_the_next(
    db: Database, watch: Watch
) -> None:
    told = watch()
    db.begin()
    Counter.create(name="lost")
    db.connection().close()
    db.dispose()
    Counter.create(name="blue")

    assert told == ["counter-blue"]


def test_a_pools_connections_have_transactions_of_their_own(tmp_path: Path, watch: Watch) -> None:
    database = PooledSqliteDatabase(str(tmp_path / "test.db"), max_connections=2)
    told = watch()
    with database.bind_ctx([Counter]):
        database.create_tables([Counter])
        for name in ("blue", "green"):
            with database.connection_context(), database.atomic():
                Counter.create(name=name)
        database.close_all()
        database.close()

    assert told == ["counter-blue", "counter-green"]


def test_nothing_is_kept_when_transactions_have_ended(db: Database, watch: Watch) -> None:
    watch()
    for end in (*LASTING, *UNDONE):
        with fresh(db):
            end(db, save)

    assert vars(db)["_grip_edge_ledgers"] == {}


# --- databases --------------------------------------------------------------------------------


def test_a_transaction_that_began_before_is_followed(db: Database, watch: Watch) -> None:
    with db.atomic():
        told = watch()
        Counter.create(name="blue")
        assert told == []

    assert told == ["counter-blue"]


def test_a_transaction_that_began_before_and_is_rolled_back_is_not_told(
    db: Database, watch: Watch
) -> None:
    with suppress(ZeroDivisionError), db.atomic():
        told = watch()
        Counter.create(name="blue")
        raise ZeroDivisionError

    assert told == []


def test_a_proxy_may_be_initialised_later(database: Databases, watch: Watch) -> None:
    proxy = DatabaseProxy()
    with database.peewee.bind_ctx([Counter]):
        Counter._meta.set_database(proxy)
        told = watch()
        proxy.initialize(database.peewee)
        proxy.create_tables([Counter])
        with proxy.atomic():
            with suppress(ZeroDivisionError), proxy.atomic():
                Counter.create(name="undone")
                raise ZeroDivisionError
            Counter.create(name="blue")

    assert told == ["counter-blue"]


def test_raw_sql_on_a_database_without_models_is_told(database: Databases, watch: Watch) -> None:
    told = watch()
    database.peewee.execute_sql("CREATE TABLE counter (name text)")
    with database.peewee.atomic():
        database.peewee.execute_sql("INSERT INTO counter VALUES ('blue')")

    assert told == [ALL]


def test_a_database_or_its_proxy_can_be_followed(
    database: Databases, watch: Watch, sources: list[PeeweeSource]
) -> None:
    watch()
    proxy = DatabaseProxy()
    proxy.initialize(database.peewee)

    assert [sources[0].follow(found) for found in (database.peewee, proxy, object())] == [
        True,
        True,
        False,
    ]


def test_the_first_transaction_of_a_database_is_followed(database: Databases, watch: Watch) -> None:
    told = watch()
    with database.peewee.atomic(), database.peewee.atomic() as savepoint:
        database.peewee.execute_sql("CREATE TABLE counter (name text)")
        database.peewee.execute_sql("INSERT INTO counter VALUES ('blue')")
        savepoint.rollback()

    assert told == []


def test_a_savepoint_in_words_keeps_what_came_before_it(db: Database, watch: Watch) -> None:
    told = watch()
    with db.atomic():
        Counter.create(name="before")
        db.execute_sql("SAVEPOINT One")
        Counter.create(name="undone")
        db.execute_sql('ROLLBACK TO SAVEPOINT "one"')

    assert told == ["counter-before"]


# --- changes that wait for a commit -----------------------------------------------------------


@pytest.mark.parametrize("end", LASTING)
def test_a_deferred_change_is_told_after_the_commit(
    db: Database, watch: Watch, sources: list[PeeweeSource], end: Callable[..., None]
) -> None:
    told = watch()
    end(db, lambda database: defer(sources[0], database, "blue"))

    assert told == ["counter-blue"]


@pytest.mark.parametrize("end", UNDONE)
def test_a_deferred_change_is_forgotten_with_a_rollback(
    db: Database, watch: Watch, sources: list[PeeweeSource], end: Callable[..., None]
) -> None:
    told = watch()
    end(db, lambda database: defer(sources[0], database, "blue"))

    assert told == []


def test_there_is_nothing_to_wait_for_in_what_is_no_database(
    watch: Watch, sources: list[PeeweeSource]
) -> None:
    watch()

    assert not sources[0].defer(object(), [])


def defer(source: PeeweeSource, database: Database, name: str) -> None:
    changes = source.changes(Counter(id=1, name=name))
    assert changes is not None
    assert source.defer(database, changes)


# --- saves ------------------------------------------------------------------------------------


def test_a_save_of_nothing_is_not_told(db: Database, watch: Watch) -> None:
    told = watch({"counter-{name}": {"models": [DirtyCounter]}})
    counter = DirtyCounter.create(name="blue")
    told.clear()
    counter.save()

    assert told == []


def test_old_values_are_read_only_if_they_may_differ(db: Database, watch: Watch) -> None:
    add("blue")
    watch()
    counter = find("blue")
    counter.value = 7
    statements: list[str] = []
    db.query_hooks.append(lambda event: statements.append(event.sql[:6]))
    counter.save()
    counter.name = "red"
    counter.save()
    db.query_hooks.clear()

    assert statements == ["UPDATE", "SELECT", "UPDATE"]


def test_what_nobody_watches_costs_no_statement(db: Database, watch: Watch) -> None:
    watch()
    tag = Tag.create(name="old")
    tag.name = "new"
    statements: list[str] = []
    db.query_hooks.append(lambda event: statements.append(event.sql[:6]))
    tag.save()
    tag.delete_instance()
    db.query_hooks.clear()

    assert statements == ["UPDATE", "DELETE"]


def test_a_computed_attribute_counts_old_and_new(db: Database, watch: Watch) -> None:
    told = watch({"counter-{slug}": {"models": [Counter]}})
    counter = Counter.create(name="BLUE")
    counter.name = "RED"
    counter.save()
    counter.delete_instance()

    assert told == ["counter-blue", "counter-blue", "counter-red", "counter-red"]


def test_a_foreign_key_counts_by_each_of_its_names(db: Database, watch: Watch) -> None:
    told = watch(
        {
            "auction-{auction_id}": {"models": [Bid]},
            "bids-{of}": {"models": [{"model": Bid, "params": {"of": "auction"}}]},
        }
    )
    one, two = Auction.create(name="one"), Auction.create(name="two")
    bid = Bid.create(auction=one, price=1)
    assert told.take() == [f"auction-{one.id}", f"bids-{one.id}"]
    bid.auction = two
    bid.save()

    assert told.take() == sorted(
        f"{kind}-{a.id}" for kind in ("auction", "bids") for a in (one, two)
    )


def test_a_subclasss_save_is_told_as_its_bases(database: Databases, watch: Watch) -> None:
    class SpecialCounter(Counter):
        pass

    told = watch()
    with database.peewee.bind_ctx([SpecialCounter]):
        database.peewee.create_tables([SpecialCounter])
        SpecialCounter.create(name="blue")
        SpecialCounter.update(value=1).execute()

    assert told == ["counter-blue", ALL]


def test_a_model_may_save_in_its_own_way(database: Databases, watch: Watch) -> None:
    class Loud(Model):
        name = CharField()

        def save(self, *args: Any, **kwargs: Any) -> Any:
            self.name = str(self.name).upper()
            return super().save(*args, **kwargs)

    told = watch({"loud-{name}": {"models": [Loud]}})
    with database.peewee.bind_ctx([Loud]):
        database.peewee.create_tables([Loud])
        Loud.create(name="blue")

    assert told == ["loud-BLUE"]


def test_an_upsert_instead_of_an_insert_is_told_by_its_table(
    database: Databases, watch: Watch
) -> None:
    """It may write another row than that of the instance."""

    class Upserted(Model):
        name = CharField(unique=True)
        value = IntegerField()

        @classmethod
        def insert(cls, *args: Any, **kwargs: Any) -> Any:
            query = super().insert(*args, **kwargs)
            return query.on_conflict(conflict_target=[cls.name], preserve=[cls.value])

    told = watch({"upserted-{name}": {"models": [Upserted]}})
    with database.peewee.bind_ctx([Upserted]):
        database.peewee.create_tables([Upserted])
        Upserted.create(name="blue", value=1)
        Upserted.create(name="blue", value=2)

    assert told == ["upserted-%all", "upserted-%all"]


@pytest.mark.parametrize("on", ["insert", "update", "delete"])
def test_only_operations_that_are_asked_for_are_told(db: Database, watch: Watch, on: str) -> None:
    told = watch({"counter-{name}": {"models": [{"model": Counter, "on": [on]}]}})
    counter = Counter.create(name="blue")
    counter.value = 7
    counter.save()
    counter.delete_instance()

    assert told == ["counter-blue"]


def test_a_payload_reads_a_value_that_the_database_computed(db: Database, watch: Watch) -> None:
    add("blue")
    told = watch({"counter-{name}": {"models": [Counter], "payload": lambda c: str(c.value)}})
    save_an_expression(db)

    [change] = told.changes
    assert change.message is not None
    assert change.message["stream"].body == b"1"


def test_each_edge_is_told_of_what_it_watches(db: Database, watch: Watch) -> None:
    counters, tags = watch(), watch({"tag-{name}": {"models": [Tag]}})
    with db.atomic():
        Counter.create(name="blue")
        Tag.create(name="red")

    assert (counters, tags) == (["counter-blue"], ["tag-red"])


def test_a_disconnected_source_tells_nothing(
    db: Database, watch: Watch, sources: list[PeeweeSource]
) -> None:
    told = watch()
    sources[0].disconnect()
    Counter.create(name="blue")

    assert told == []


def test_a_suppressed_block_is_not_told(
    db: Database, watch: Watch, sources: list[PeeweeSource]
) -> None:
    told = watch()
    with sources[0]._observer.suppress(), db.atomic():
        Counter.create(name="blue")
        Counter.update(value=7).execute()
    Counter.create(name="green")

    assert told == ["counter-green"]


def test_changed_knows_an_instance(watch: Watch, sources: list[PeeweeSource]) -> None:
    watch()
    changes = sources[0].changes(Counter(id=1, name="blue"))

    assert changes is not None
    assert [change.topic.name for change in changes] == ["counter-blue"]
    assert sources[0].changes(object()) is None


def test_an_attribute_that_is_missing_is_a_mistake(watch: Watch) -> None:
    with pytest.raises(SettingsError, match="Counter has no attribute 'colour'"):
        watch({"counter-{colour}": {"models": [Counter]}})


def test_a_path_that_names_nothing_is_logged_once(
    db: Database, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    watch({"counters": {"models": ["nowhere:Counter"]}})
    add("blue")
    add("green")

    assert caplog.text.count('nothing that is imported is named "nowhere:Counter"') == 1
    caplog.clear()


def test_a_model_that_is_defined_later_is_found_by_its_path(
    database: Databases, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = watch({"late-{name}": {"models": [f"{__name__}:Late"]}})
    database.peewee.execute_sql("SELECT 1")

    class Late(Model):
        name = CharField()

    monkeypatch.setitem(globals(), "Late", Late)
    with database.peewee.bind_ctx([Late]):
        database.peewee.create_tables([Late])
        Late.create(name="blue")
        Late.update(name="red").execute()

    assert told == ["late-blue", "late-%all"]


def test_an_attribute_that_raises_changes_all_topics(
    db: Database, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    told = watch({"counter-{slug}": {"models": [Counter]}})
    with db.atomic():
        for name in ("A", "bad", "Z"):
            Counter.create(name=name)

    assert told.take() == [ALL, "counter-a", "counter-z"]
    assert "a save of Counter was not understood" in caplog.text
    caplog.clear()


def test_a_fault_in_reading_a_row_breaks_nothing_and_tells_the_table(
    db: Database, watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add("blue")
    told = watch()
    counter = find("blue")
    counter.name = "red"
    with monkeypatch.context() as patch:
        patch.setattr(Counter, "select", lambda *_: 1 / 0)
        counter.save()

    assert find("red")
    assert told == [ALL]
    assert "a save was not understood" in caplog.text
    caplog.clear()


# --- rows that go along -----------------------------------------------------------------------


def test_a_recursive_delete_tells_each_row(db: Database, watch: Watch) -> None:
    one, two = Auction.create(name="one"), Auction.create(name="two")
    bids = [Bid.create(auction=auction, price=price) for auction in (one, two) for price in (1, 2)]
    note = Note.create(auction=one, text="a note")
    told = watch({f"{k.__name__}-{{id}}": {"models": [k]} for k in (Auction, Bid, Note)})
    one.delete_instance(recursive=True)

    gone = [f"Bid-{bids[0].id}", f"Bid-{bids[1].id}", f"Note-{note.id}", f"Auction-{one.id}"]
    assert told.take() == sorted(gone)


def test_a_recursive_delete_tells_the_rows_of_its_own_table(db: Database, watch: Watch) -> None:
    root = Folder.create(name="root")
    Folder.create(name="leaf", parent=root)
    Folder.create(name="other")
    told = watch({"folder-{name}": {"models": [Folder]}})
    root.delete_instance(recursive=True, delete_nullable=True)

    assert told.take() == ["folder-leaf", "folder-root"]


def test_a_recursive_delete_of_very_many_tells_their_table(
    db: Database, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "MAX_DEPENDENTS", 1)
    auction = Auction.create(name="one")
    Bid.create(auction=auction, price=1)
    Bid.create(auction=auction, price=2)
    told = watch({"auction-{name}": {"models": [Auction]}, "bid-{id}": {"models": [Bid]}})
    with db.atomic():
        auction.delete_instance(recursive=True)

    assert told.take() == ["auction-one", "bid-%all"]


def test_a_recursive_delete_of_very_many_of_its_own_table_tells_the_table(
    db: Database, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saves, "MAX_DEPENDENTS", 1)
    root = Folder.create(name="root")
    for name in ("one", "two"):
        Folder.create(name=name, parent=root)
    told = watch({"folder-{name}": {"models": [Folder]}})
    with db.atomic():
        root.delete_instance(recursive=True, delete_nullable=True)

    assert told == ["folder-%all"]


@pytest.mark.parametrize("is_by_row", [True, False])
def test_what_the_database_deletes_along_is_told_by_its_table(
    db: Database, watch: Watch, is_by_row: bool
) -> None:
    auction = Auction.create(name="one")
    told = watch({"bid-{id}": {"models": [Bid]}})
    if is_by_row:
        auction.delete_instance()
    else:
        Auction.delete().execute()

    assert told == ["bid-%all"]


# --- many to many -----------------------------------------------------------------------------

BOTH = {"post-{title}": {"models": [Post]}, "tag-{name}": {"models": [Tag]}}


@pytest.mark.parametrize(
    "write",
    [
        lambda post, tag: post.tags.add(tag),
        lambda post, tag: post.tags.add([tag.id]),
        lambda post, tag: post.tags.add(Tag.select()),
        lambda post, tag: post.tags.add(tag) or post.tags.remove(tag),
        lambda post, tag: post.tags.add(tag) or post.tags.clear(),
        lambda post, tag: setattr(post, "tags", [tag]),
        lambda post, tag: tag.posts.add(post),
        lambda post, tag: PostTag.create(post=post, tag=tag),
        lambda post, tag: PostTag.create(post=post, tag=tag).delete_instance(),
    ],
)
def test_a_relation_changes_both_sides(
    db: Database, watch: Watch, write: Callable[[Post, Tag], Any]
) -> None:
    post, tag = Post.create(title="one"), Tag.create(name="red")
    told = watch(BOTH)
    with db.atomic():
        write(post, tag)

    assert told.take() == ["post-%all", "tag-%all"]


# --- automatic keys ---------------------------------------------------------------------------


def test_a_saved_row_changes_its_key_and_scopes_old_and_new(db: Database, watch: Watch) -> None:
    told = watch({"x": {"routes": ["/x"]}}, auto_tags={"scopes": ["author_id"]})
    post = Post.create(title="one", author_id=3)
    created = told.take()
    post.author_id = 4
    post.save()
    moved = told.take()
    post.delete_instance()

    row = f"%row:post:{post.id}"
    assert created == ["%row:post.author_id:3", row]
    assert moved == ["%row:post.author_id:3", "%row:post.author_id:4", row]
    assert told.take() == ["%row:post.author_id:4", row]


def test_a_row_without_a_single_key_changes_the_lists_of_its_table(
    db: Database, watch: Watch
) -> None:
    told = watch({"x": {"routes": ["/x"]}}, auto_tags=True)
    Place.create(row=1, seat=2, guest="Ann")

    assert told == ["%row:place:%any"]


def test_unknown_rows_change_all_pages_of_the_table(db: Database, watch: Watch) -> None:
    told = watch({"x": {"routes": ["/x"]}}, auto_tags=True)
    Post.insert(title="one").execute()

    assert told == ["%row:post:%all"]


def test_a_read_has_the_key_that_its_save_changes(db: Database, watch: Watch) -> None:
    told = watch({"x": {"routes": ["/x"]}}, auto_tags=True)
    key = "5b8b4d1e-8b0c-4a39-9b26-0f3f7a7f9f0e"
    Ticket.create(id=key, holder="Ann")
    with reading() as notes:
        Ticket.get_by_id(key)

    assert list(notes.rows) == told


def test_a_view_has_the_keys_of_what_it_reads(db: Database, watch: Watch) -> None:
    post = Post.create(title="one", author_id=3)
    watch({"x": {"routes": ["/x"]}}, auto_tags=True)
    with reading("author_id") as notes:
        Post.get_by_id(post.id)
        list(Post.select().where(Post.author_id == 3))
        Tag.select().count()
        db.execute_sql("SELECT * FROM auction").fetchall()
        Post.get_or_none(Post.id == 999)
        list(Post.select().where(Post.title == "one"))

    assert list(notes.rows) == [
        f"%row:post:{post.id}",
        "%row:post.author_id:3",
        "%row:tag:%any",
        "%row:auction:%any",
        "%row:post:999",
        "%row:post:%any",
    ]


def test_a_relation_is_read_by_its_own_table_too(db: Database, watch: Watch) -> None:
    post = Post.create(title="one")
    told = watch({"x": {"routes": ["/x"]}}, auto_tags=True)
    with reading() as notes:
        list(post.tags)
    post.tags.add(Tag.create(name="red"))

    assert "%row:post_tag_through:%any" in notes.rows
    assert "%row:post_tag_through:%all" in told


@contextmanager
def reading(*scopes: str) -> Iterator[Notes]:
    notes = Notes(scopes=Scopes(frozenset(scopes)))
    token = current_notes.set(notes)
    try:
        yield notes
    finally:
        current_notes.reset(token)


# --- asyncio ----------------------------------------------------------------------------------


@asynccontextmanager
async def opened(database: Any) -> AsyncIterator[None]:
    with database.bind_ctx([Counter]):
        try:
            await database.acreate_tables([Counter])
            yield
        finally:
            await database.close_pool()


def test_an_asyncio_database_is_followed(tmp_path: Path, watch: Watch) -> None:
    told = watch()

    async def main() -> None:
        database = AsyncSqliteDatabase(str(tmp_path / "test.db"))
        async with opened(database):
            await database.aexecute(Counter.insert(name="first"))
            assert told.take() == [ALL]
            async with database.atomic():
                await database.run(Counter.create, name="blue")
                async with database.atomic() as savepoint:
                    await database.run(Counter.create, name="undone")
                    await savepoint.arollback()
                assert told == []
            assert told.take() == ["counter-blue"]
            await database.aexecute(Counter.update(value=7))
            assert told.take() == [ALL]
            await database.aexecute_sql("DELETE FROM counter")
            assert told.take() == [ALL]
            with suppress(ZeroDivisionError):
                async with database.atomic():
                    await database.run(Counter.create, name="undone")
                    raise ZeroDivisionError

    asyncio.run(main())

    assert told == []


def test_tasks_have_transactions_of_their_own(tmp_path: Path, watch: Watch) -> None:
    told = watch()

    async def write(database: Any, name: str, may_go_on: asyncio.Event) -> None:
        async with database.atomic():
            await may_go_on.wait()
            await database.run(Counter.create, name=name)

    async def main() -> None:
        database = AsyncSqliteDatabase(str(tmp_path / "test.db"))
        async with opened(database):
            blue, green = asyncio.Event(), asyncio.Event()
            one = asyncio.create_task(write(database, "blue", blue))
            two = asyncio.create_task(write(database, "green", green))
            green.set()
            await two
            assert told.take() == ["counter-green"]
            blue.set()
            await one

    asyncio.run(main())

    assert told == ["counter-blue"]


def test_an_asyncio_database_on_postgresql_is_followed(postgres: Postgres, watch: Watch) -> None:
    """asyncpg has transactions of its own: a savepoint that is undone is told all the same."""
    told = watch()

    async def main(name: str) -> None:
        where = {"host": postgres.host, "port": postgres.port, "user": postgres.user}
        database = AsyncPostgresqlDatabase(name, **where)
        async with opened(database):
            async with database.atomic():
                await database.run(Counter.create, name="blue")
                assert told == []
            assert told.take() == ["counter-blue"]
            with suppress(ZeroDivisionError):
                async with database.atomic():
                    await database.run(Counter.create, name="undone")
                    raise ZeroDivisionError
            assert told == []
            await database.aexecute(Counter.update(value=7))

    with postgres.new_database() as name:
        asyncio.run(main(name))

    assert told == [ALL]
