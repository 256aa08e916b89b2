"""Commits in a loop with Django, to be killed; see `kills.py`.

This module is the app, too: the models come after the setup that installs it.
"""

# Types of fields come from a plugin of the stubs, which would load Django to check it.
# mypy: disable-error-code="var-annotated"

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections, models, transaction

from grip_edge_middleware import GripEdge
from tests.sources.kills import Numbers, Order

# The program's order tells which: until then there is none.
DATABASES: dict[str, Any] = {}

settings.configure(
    DATABASES=DATABASES,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[__name__, "grip_edge_middleware.django"],
)
django.setup()


class Item(models.Model):
    number = models.BigIntegerField()

    class Meta:
        db_table = "item"


class Lot(models.Model):
    number = models.BigIntegerField()

    class Meta:
        db_table = "lot"


class Program:
    """Atomic blocks, savepoints, transactions by hand, autocommit, and statements of all kinds."""

    def __init__(self, order: Order) -> None:
        self._settings = order.edge
        DATABASES["default"] = order.django

    def create_tables(self) -> None:
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA journal_mode = WAL")
        with connection.schema_editor() as editor:
            editor.create_model(Item)
            editor.create_model(Lot)
        call_command("migrate", "grip_edge", verbosity=0)

    def open_edge(self) -> GripEdge:
        topics = {"item-{number}": {"models": [Item]}, "lot-{number}": {"models": [Lot]}}
        return GripEdge(settings={**self._settings, "topics": topics})

    def look_after(self, edge: GripEdge) -> None:
        connection.ensure_connection()

    def commit(self, numbers: Numbers, chance: random.Random) -> None:
        chance.choice(WAYS)(numbers)

    def disconnect(self) -> None:
        connections.close_all()
        # The next edge would look after the outbox of a connection that it meets, in a thread.
        del connections["default"]


def save(numbers: Numbers) -> None:
    Item(number=next(numbers)).save()


def save_twice(numbers: Numbers) -> None:
    item = Item.objects.create(number=next(numbers))
    item.number = next(numbers)
    item.save(update_fields=["number"])


def save_in_a_block(numbers: Numbers) -> None:
    with transaction.atomic():
        Item(number=next(numbers)).save()


def save_several(numbers: Numbers) -> None:
    with transaction.atomic():
        for _ in range(5):
            Item.objects.create(number=next(numbers))


def delete(numbers: Numbers) -> None:
    Item.objects.create(number=next(numbers)).delete()


def replace(numbers: Numbers) -> None:
    """Delete an object, and have another in its place."""
    item = Item.objects.create(number=next(numbers))
    with transaction.atomic():
        item.delete()
        Item.objects.create(number=next(numbers))


def save_around_savepoints(numbers: Numbers) -> None:
    with transaction.atomic():
        Item.objects.create(number=next(numbers))
        with transaction.atomic():
            with transaction.atomic():
                Item.objects.create(number=-next(numbers))
            transaction.set_rollback(True)
        with transaction.atomic():
            Item.objects.create(number=next(numbers))


def save_around_a_savepoint_by_hand(numbers: Numbers) -> None:
    with transaction.atomic():
        Item.objects.create(number=next(numbers))
        savepoint = transaction.savepoint()
        Item.objects.create(number=-next(numbers))
        transaction.savepoint_rollback(savepoint)


def roll_back(numbers: Numbers) -> None:
    with transaction.atomic():
        Item.objects.create(number=-next(numbers))
        transaction.set_rollback(True)


def save_by_hand(numbers: Numbers) -> None:
    transaction.set_autocommit(False)
    Item.objects.create(number=next(numbers))
    transaction.commit()
    Item.objects.create(number=-next(numbers))
    transaction.rollback()
    transaction.set_autocommit(True)


def create_in_bulk(numbers: Numbers) -> None:
    Lot.objects.bulk_create(Lot(number=next(numbers)) for _ in range(5))


def update(numbers: Numbers) -> None:
    number = next(numbers)
    Lot.objects.bulk_create([Lot(number=number)])
    Lot.objects.filter(number=number).update(number=next(numbers))


def insert_by_text(numbers: Numbers) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO lot (number) VALUES (%s)", [next(numbers)])


def insert_by_text_in_a_block(numbers: Numbers) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO lot (number) VALUES (%s)", [[next(numbers)], [next(numbers)]]
        )
        Item.objects.create(number=next(numbers))


WAYS: list[Callable[[Numbers], None]] = [
    save,
    save_twice,
    save_in_a_block,
    save_several,
    delete,
    replace,
    save_around_savepoints,
    save_around_a_savepoint_by_hand,
    roll_back,
    save_by_hand,
    create_in_bulk,
    update,
    insert_by_text,
    insert_by_text_in_a_block,
]
