"""The outbox in a database that SQLAlchemy reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Column, MetaData, String, Table, Text, delete, select, update
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.util import greenlet_spawn

from grip_edge_middleware.outbox import TABLE, OutboxRow

T = TypeVar("T")

# A statement that fails ends the whole transaction there.
_NEEDS_SAVEPOINT = frozenset({"postgresql", "cockroachdb", "redshift"})
_SAVEPOINT = "grip_edge_outbox"


def create_outbox(metadata: MetaData) -> Table:
    """Add the outbox to the tables of an app, to be created or migrated with them.

    create_outbox(Base.metadata)
    Base.metadata.create_all(engine)
    """
    return Table(
        TABLE,
        metadata,
        Column("id", String(32), primary_key=True),
        Column("edge", String(64), nullable=False),
        Column("due", BigInteger, nullable=False, index=True),
        Column("changes", Text, nullable=False),
        extend_existing=True,
    )


_table = create_outbox(MetaData())
_ROW = (_table.c.id, _table.c.due, _table.c.changes)


def is_in_memory(engine: Engine) -> bool:
    """Whether the database ends with the process, so that no outbox outlives it."""
    return engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:")


class SQLAlchemyOutbox:
    """The outbox of one engine's database, as far as it is that of the edges of this name."""

    def __init__(self, engine: Engine, name: str = "") -> None:
        self._name = name
        self._app_engine = engine
        self._dialect = engine.dialect
        self._insert = _table.insert().compile(dialect=engine.dialect)
        self.after_fork()

    def insert(self, connection: Any, row: OutboxRow) -> None:
        """Write a row in the transaction that is open on a connection of the app."""
        if isinstance(connection, Connection):
            connection = connection.connection
        values = {
            "id": row.id,
            "edge": self._name,
            "due": row.due,
            "changes": row.changes,
        }
        cursor = connection.cursor()
        try:
            if self._dialect.name in _NEEDS_SAVEPOINT:
                self._insert_in_savepoint(cursor, values)
            else:
                cursor.execute(self._insert.string, self._parameters(values))
        finally:
            cursor.close()

    def _insert_in_savepoint(self, cursor: Any, values: dict[str, Any]) -> None:
        cursor.execute(f"SAVEPOINT {_SAVEPOINT}")
        try:
            cursor.execute(self._insert.string, self._parameters(values))
        except Exception:
            cursor.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            raise
        cursor.execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")

    def _parameters(self, values: dict[str, Any]) -> Any:
        if not self._insert.positional:
            return values
        return tuple(values[name] for name in self._insert.positiontup or ())

    # --- in the outbox's thread -------------------------------------------------------------

    def take(self, now: int, until: int, limit: int) -> list[OutboxRow]:
        """Take rows that are due."""
        due = (
            select(_table.c.id)
            .where(_table.c.due < now, _table.c.edge == self._name)
            .order_by(_table.c.due)
            .limit(limit)
            # Where there is no such thing, it is left out.
            .with_for_update(skip_locked=True)
        )

        def work(connection: Connection) -> list[OutboxRow]:
            if connection.dialect.update_returning:
                later = update(_table).where(_table.c.id.in_(due)).values(due=until)
                taken = connection.execute(later.returning(*_ROW))
            else:
                ids = connection.execute(due).scalars().all()
                later = update(_table).where(_table.c.id.in_(ids)).values(due=until)
                connection.execute(later)
                taken = connection.execute(select(*_ROW).where(_table.c.id.in_(ids)))
            return [OutboxRow(*row) for row in taken]

        return self._run(work)

    def keep(self, ids: Sequence[str], until: int) -> None:
        """Put off when rows are due."""
        self._execute(update(_table).where(_table.c.id.in_(ids)).values(due=until))

    def delete(self, ids: Sequence[str]) -> None:
        """Delete rows."""
        self._execute(delete(_table).where(_table.c.id.in_(ids)))

    def close(self) -> None:
        """Close the connections of this thread."""
        if self._engine is not None:
            self._engine.dispose()

    def after_fork(self) -> None:
        """Leave the connections to the parent."""
        self._engine: Engine | None = None

    def _execute(self, statement: Any) -> None:
        self._run(lambda connection: connection.execute(statement))

    def _run(self, work: Callable[[Connection], T]) -> T:
        if self._dialect.is_async:
            done: T = asyncio.run(greenlet_spawn(self._in_passing, work))
            return done
        return self._in_transaction(work)

    def _in_passing(self, work: Callable[[Connection], T]) -> T:
        """Leave nothing open, for the event loop ends.

        One that is kept would be closed in a fork too, and then hang in the parent: they share what
        it waits with.
        """
        try:
            return self._in_transaction(work)
        finally:
            self.close()

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        with self._connections().begin() as connection:
            return work(connection)

    def _connections(self) -> Engine:
        """Return an engine like the app's, with connections of its own.

        Those of the app may belong to its event loop, or be all in use.
        """
        if self._engine is None:
            app = self._app_engine
            self._engine = Engine(app.pool.recreate(), app.dialect, app.url)
        return self._engine
