"""Many-to-many fields: no row of either side is written, and both have changed.

`m2m_changed` tells which, around the statements that write the table between them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any, Protocol

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.signals import m2m_changed

from grip_edge_middleware.sources.django.connection import (
    Relating,
    follow,
    tell_writers,
    unnoticed,
)
from grip_edge_middleware.sources.django.schema import Kind, Side, schema, table_name
from grip_edge_middleware.sql import Write

logger = logging.getLogger(__name__)

# Beyond, the objects of the other side are not looked up one by one.
MAX_RELATED = 100


class Listener(Protocol):
    """Wants to know what is related."""

    def related(
        self, connection: BaseDatabaseWrapper, instance: Model, side: Side, pks: Collection[Any]
    ) -> None:
        """Note that an object on this side was related to others, or no longer is."""


listeners: list[Listener] = []


def listen(through: Kind) -> None:
    """Listen to changes of the fields that this table is for.

    With a receiver, Django asks for what is there before it adds.
    """
    m2m_changed.connect(_changed, sender=through, dispatch_uid="grip_edge")


def _changed(
    sender: Kind,
    instance: Any,
    action: str,
    reverse: bool,
    pk_set: set[Any] | None,
    using: str,
    **_: object,
) -> None:
    if not listeners:
        return
    connection, table = connections[using], table_name(sender._meta.db_table)
    try:
        side = schema().sides[table][1 if reverse else 0]
        if action.startswith("pre_"):
            pks = _pks_of_others(side, instance, connection) if action == "pre_clear" else ()
            _begin(connection, table, side, pks, is_add=action == "pre_add")
        elif (relating := _end(connection, table, side)) and relating.has_run:
            for listener in listeners:
                listener.related(connection, instance, side, pk_set or relating.pks)
    except Exception:
        logger.exception("what was related was not understood; all that it may be is changed")
        follow(connection).relating.clear()
        tell_writers(connection, [Write(table, frozenset({"insert", "delete"}))])


def _begin(
    connection: BaseDatabaseWrapper,
    table: str,
    side: Side,
    pks: Iterable[Any],
    *,
    is_add: bool,
) -> None:
    # A symmetrical relation is added twice, in an outer block, and told once.
    at = -2 if is_add and side.is_symmetrical else -1
    block = connection.atomic_blocks[at]
    relating = Relating(table, block=block, pks=frozenset(pks))
    follow(connection).relating.append(relating)


def _end(connection: BaseDatabaseWrapper, table: str, side: Side) -> Relating | None:
    all_relating = follow(connection).relating
    found = next((r for r in reversed(all_relating) if r.table == table), None)
    if found is not None and not side.is_symmetrical:
        all_relating.remove(found)
    return found


def _pks_of_others(side: Side, instance: Model, connection: BaseDatabaseWrapper) -> set[Any]:
    """Return whom an object is related to, or some more than are looked up."""
    values = [getattr(instance, side.key.target_field.attname)]
    sides = [side, side.reversed] if side.is_symmetrical else [side]
    with unnoticed():
        found = (v for s in sides for v in _keys_of_others(s, values, connection))
        return set(islice(found, MAX_RELATED + 1))


def objects(key: Any, values: Collection[Any], connection: BaseDatabaseWrapper) -> list[Model]:
    """Return the objects to which a foreign key with these values refers."""
    kind, name = key.remote_field.model, key.target_field.attname
    found = kind._base_manager.using(connection.alias).filter(**{f"{name}__in": list(values)})
    with unnoticed():
        return list(found)


def others(side: Side, values: Collection[Any], connection: BaseDatabaseWrapper) -> list[Model]:
    """Return the objects on the other side that these, by the values of their key, relate to."""
    with unnoticed():
        keys = set(_keys_of_others(side, values, connection))
    return objects(side.other, keys, connection)


def _keys_of_others(
    side: Side, values: Collection[Any], connection: BaseDatabaseWrapper
) -> Iterable[Any]:
    rows = side.through._base_manager.using(connection.alias)
    is_theirs = {f"{side.key.attname}__in": list(values)}
    return rows.filter(**is_theirs).values_list(side.other.attname, flat=True)
