"""The outbox of Django's databases: one row with each transaction that changes something."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.test.utils import CaptureQueriesContext

from grip_edge_middleware.outbox import TABLE
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources.django import DjangoSource
from grip_edge_middleware.sources.django.outbox import DjangoOutbox
from tests.sources import django_app
from tests.sources.databases import Database
from tests.sources.django_app.models import Author, Tag
from tests.sources.outboxes import Edge, left_by_another

OutboxRow: Any = apps.get_model("grip_edge", "OutboxRow")
SETTINGS = Settings.parse({"topics": {"item-{name}": {"models": [Tag]}}}, {})


@pytest.fixture(autouse=True)
def tables(database: Database) -> Iterator[None]:
    with django_app.using(database.django):
        yield


@pytest.fixture
def edge(tables: None) -> Iterator[Edge[DjangoSource]]:
    edge = Edge(SETTINGS, DjangoSource)
    yield edge
    edge.deliver_and_close()


def rows() -> list[list[str]]:
    """The topics of each row."""
    found = OutboxRow._base_manager.values_list("changes", flat=True)
    return sorted(sorted(change["topic"] for change in json.loads(row)) for row in found)


def test_a_transaction_writes_one_row_for_all_that_it_changes(edge: Edge[DjangoSource]) -> None:
    with transaction.atomic():
        Tag.objects.create(name="a")
        Tag.objects.create(name="b")

    assert rows() == [["item-a", "item-b"]]
    assert sorted(edge.submitted) == ["item-a", "item-b"]


def test_a_rollback_writes_nothing(edge: Edge[DjangoSource]) -> None:
    with transaction.atomic():
        Tag.objects.create(name="a")
        transaction.set_rollback(True)

    assert rows() == []


def test_a_rolled_back_savepoint_is_not_in_the_row(edge: Edge[DjangoSource]) -> None:
    with transaction.atomic():
        Tag.objects.create(name="a")
        with transaction.atomic():
            Tag.objects.create(name="b")
            transaction.set_rollback(True)
        with transaction.atomic():
            Tag.objects.create(name="c")

    assert rows() == [["item-a", "item-c"]]


def test_a_statement_without_a_transaction_may_return_rows(edge: Edge[DjangoSource]) -> None:
    """SQLite cannot commit before they are fetched."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO tag (name) VALUES ('a'), ('b') RETURNING name")
        returned = cursor.fetchall()

    assert returned == [("a",), ("b",)]
    assert Tag.objects.count() == 2
    assert edge.submitted


def test_a_save_without_a_transaction_gets_one_for_its_row(edge: Edge[DjangoSource]) -> None:
    with CaptureQueriesContext(connection) as queries:
        tag = Tag.objects.create(name="a")
    tag.name = "b"
    tag.save()

    assert rows() == [["item-a"], ["item-a", "item-b"]]
    begin, *_, commit = (query["sql"] for query in queries)
    assert (begin, commit) == ("BEGIN", "COMMIT")


def test_what_a_migration_saves_without_a_transaction_is_committed(
    edge: Edge[DjangoSource],
) -> None:
    recorder = MigrationRecorder(connection)
    with connection.schema_editor() as editor:
        editor.create_model(recorder.Migration)

    recorder.record_applied("shop", "0001_initial")

    assert recorder.migration_qs.filter(app="shop").exists()


def test_a_deletion_without_a_transaction_gets_one_for_its_row(edge: Edge[DjangoSource]) -> None:
    Tag.objects.bulk_create([Tag(name="a"), Tag(name="b")])
    OutboxRow._base_manager.all()._raw_delete("default")

    Tag.objects.get(name="a").delete()

    assert rows() == [["item-a"]]


def test_a_statement_without_a_transaction_gets_one_for_its_row(edge: Edge[DjangoSource]) -> None:
    Tag.objects.create(name="a")
    OutboxRow._base_manager.all()._raw_delete("default")

    Tag.objects.update(name="b")
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {Tag._meta.db_table}")

    assert rows() == [["item-%all"], ["item-%all"]]


@pytest.mark.parametrize("new_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("block", [nullcontext, transaction.atomic])
def test_a_save_whose_old_values_are_read_lets_no_other_writer_in_between(
    block: Callable[[], AbstractContextManager[None]], edge: Edge[DjangoSource], database: Database
) -> None:
    tag = Tag.objects.create(name="a")
    other = sqlite3.connect(database.django["NAME"], isolation_level=None)
    other.execute("PRAGMA journal_mode = WAL")  # the outbox's thread may be writing
    other.execute("PRAGMA busy_timeout = 0")

    def write_before_updates(execute: Any, sql: str, *args: Any) -> Any:
        # A transaction that has read what is no longer so could not write any more.
        if sql.startswith("UPDATE"):
            with suppress(sqlite3.OperationalError):
                other.execute("INSERT INTO author (name) VALUES ('other')")
        return execute(sql, *args)

    with closing(other), block(), connection.execute_wrapper(write_before_updates):
        tag.name = "b"
        tag.save()

    assert rows() == [["item-a"], ["item-a", "item-b"]]
    assert not Author.objects.exists()


def test_a_transaction_by_hand_has_its_row(edge: Edge[DjangoSource]) -> None:
    transaction.set_autocommit(False)
    try:
        Tag.objects.create(name="a")
        transaction.commit()
        Tag.objects.create(name="b")
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)

    assert rows() == [["item-a"]]


def test_what_nobody_watches_writes_no_row(edge: Edge[DjangoSource]) -> None:
    Author.objects.create(name="a")

    assert rows() == []


def test_a_row_is_deleted_when_it_is_delivered(edge: Edge[DjangoSource]) -> None:
    Tag.objects.create(name="a")

    edge.deliver_and_close()

    assert rows() == []


def test_a_missing_table_does_not_break_the_transaction(
    edge: Edge[DjangoSource], caplog: pytest.LogCaptureFixture
) -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(OutboxRow)
    with transaction.atomic():
        Tag.objects.create(name="a")
    Tag.objects.create(name="b")

    assert Tag.objects.count() == 2
    assert edge.submitted == ["item-a", "item-b"]
    assert caplog.text.count("was the table created?") == 1
    assert edge.metrics.snapshot()["outbox_faults"] >= 2
    with connection.schema_editor() as editor:
        editor.create_model(OutboxRow)


def test_the_app_sees_no_statement_of_the_outbox(edge: Edge[DjangoSource]) -> None:
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        Tag.objects.create(name="a")

    assert rows() == [["item-a"]]
    assert not [query for query in queries if TABLE in query["sql"]]


def test_what_a_killed_process_left_is_taken(edge: Edge[DjangoSource]) -> None:
    OutboxRow._base_manager.create(**left_by_another("left"))

    edge.wait_for("item-left")
    edge.deliver_and_close()

    assert rows() == []


def test_the_migration_makes_the_table_and_nothing_is_left_to_migrate(tables: None) -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(OutboxRow)

    call_command("migrate", "grip_edge", verbosity=0)
    call_command("makemigrations", "grip_edge", check=True, verbosity=0)

    assert rows() == []


# --- the table --------------------------------------------------------------------------------


@pytest.fixture
def table(tables: None) -> Iterator[DjangoOutbox]:
    table = DjangoOutbox("default")
    yield table
    table.close()


def write(*dues: int) -> None:
    for due in dues:
        OutboxRow._base_manager.create(id=f"r{due}", due=due, changes="[]")


def test_what_is_due_is_taken_oldest_first(table: DjangoOutbox) -> None:
    write(3, 1, 2, 9)

    taken = [row.id for row in table.take(now=5, until=100, limit=2)]

    assert sorted(taken) == ["r1", "r2"]
    assert [row.id for row in table.take(now=5, until=100, limit=2)] == ["r3"]
    assert table.take(now=5, until=100, limit=2) == []


def test_where_no_update_returns_rows_they_are_locked_first(table: DjangoOutbox) -> None:
    write(3, 1, 2, 9)

    taken = [(row.id, row.due) for row in table._take_locked(now=5, until=100, limit=2)]

    assert sorted(taken) == [("r1", 100), ("r2", 100)]
    assert [row.id for row in table.take(now=5, until=100, limit=2)] == ["r3"]


def test_what_is_of_another_name_is_left_to_it(table: DjangoOutbox) -> None:
    OutboxRow._base_manager.create(id="r1", edge="shop", due=1, changes="[]")

    assert table.take(now=5, until=100, limit=9) == []
    assert table._take_locked(now=5, until=100, limit=9) == []
    assert [row.id for row in DjangoOutbox("default", "shop").take(5, 100, 9)] == ["r1"]


def test_what_is_kept_is_not_due(table: DjangoOutbox) -> None:
    write(1, 2)

    table.keep(["r1", "gone"], until=100)

    assert [row.id for row in table.take(now=5, until=100, limit=9)] == ["r2"]


def test_what_is_deleted_is_gone(table: DjangoOutbox) -> None:
    write(1, 2)

    table.delete(["r1", "gone"])

    assert [row.id for row in table.take(now=5, until=100, limit=9)] == ["r2"]
