"""The outbox in a database that Django reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from grip_edge_middleware.outbox import TABLE, OutboxRow

_INSERT = f"INSERT INTO {TABLE} (id, edge, due, changes) VALUES (%s, %s, %s, %s)"  # noqa: S608
_DUE = f"SELECT id FROM {TABLE} WHERE due < %s AND edge = %s ORDER BY due LIMIT %s"  # noqa: S608

# Of the app that brings the table, `grip_edge_middleware.django`.
APP_LABEL = "grip_edge"

# UPDATE ... RETURNING
_RETURNS = frozenset({"postgresql", "sqlite"})
_SAVEPOINT = "grip_edge_outbox"


class DjangoOutbox:
    """The outbox of one alias, as far as it is that of the edges of this name."""

    def __init__(self, alias: str, name: str = "") -> None:
        self._alias = alias
        self._name = name

    def insert(self, connection: BaseDatabaseWrapper, row: OutboxRow) -> None:
        """Write a row in the transaction that is open on a connection."""
        # Not by `connection.cursor`, whose statements the app counts and wraps.
        cursor: Any = connection.create_cursor()
        # A statement that fails ends the whole transaction there.
        needs_savepoint = connection.vendor == "postgresql"
        try:
            if needs_savepoint:
                cursor.execute(f"SAVEPOINT {_SAVEPOINT}")
            cursor.execute(_INSERT, (row.id, self._name, row.due, row.changes))
        except Exception:
            if needs_savepoint:
                cursor.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            raise
        else:
            if needs_savepoint:
                cursor.execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
        finally:
            cursor.close()

    # --- in the outbox's thread, which has a connection of its own ------------------------------

    def take(self, now: int, until: int, limit: int) -> list[OutboxRow]:
        """Take rows that are due."""
        connection = self._connection()
        if connection.vendor not in _RETURNS:
            return self._take_locked(now, until, limit)
        lock = " FOR UPDATE SKIP LOCKED" if connection.vendor == "postgresql" else ""
        later = f"UPDATE {TABLE} SET due = %s WHERE id IN ({_DUE}{lock}) RETURNING id, due, changes"  # noqa: S608
        with connection.cursor() as cursor:
            cursor.execute(later, [until, now, self._name, limit])
            return [OutboxRow(*row) for row in cursor.fetchall()]

    def _take_locked(self, now: int, until: int, limit: int) -> list[OutboxRow]:
        Row: Any = apps.get_model(APP_LABEL, "OutboxRow")  # noqa: N806 - a class
        features = self._connection().features
        with transaction.atomic(using=self._alias):
            rows = Row._base_manager.using(self._alias)
            due = rows.filter(due__lt=now, edge=self._name).order_by("due")
            if features.has_select_for_update:
                skips = features.has_select_for_update_skip_locked
                due = due.select_for_update(skip_locked=skips)
            taken = [OutboxRow(row.id, until, row.changes) for row in due[:limit]]
            rows.filter(id__in=[row.id for row in taken]).update(due=until)
        return taken

    def keep(self, ids: Sequence[str], until: int) -> None:
        """Put off when rows are due."""
        self._execute(f"UPDATE {TABLE} SET due = %s WHERE id IN", [until], ids)  # noqa: S608

    def delete(self, ids: Sequence[str]) -> None:
        """Delete rows."""
        self._execute(f"DELETE FROM {TABLE} WHERE id IN", [], ids)  # noqa: S608

    def close(self) -> None:
        """Close the connection of this thread."""
        connections[self._alias].close()

    def after_fork(self) -> None:
        """Nothing: a child's threads have connections of their own."""

    def _connection(self) -> BaseDatabaseWrapper:
        connection = connections[self._alias]
        connection.close_if_unusable_or_obsolete()
        return connection

    def _execute(self, beginning: str, params: list[Any], ids: Sequence[str]) -> None:
        places = ", ".join(["%s"] * len(ids))
        with self._connection().cursor() as cursor:
            cursor.execute(f"{beginning} ({places})", [*params, *ids])
