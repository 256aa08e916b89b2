"""What connections execute, and which of it lasts.

Only the connection knows the outcome of a transaction: `transaction.on_commit` knows nothing of
`set_autocommit(False)` nor of savepoints that the app makes by hand, and a hook of the app that
raises loses those that come after it. So the connection's own calls for commit, rollback and
savepoints are followed, and its statements by Django's `execute_wrappers`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.db import (
    DataError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    transaction,
)
from django.db.backends.base.base import BaseDatabaseWrapper

from grip_edge_middleware.changes import Change
from grip_edge_middleware.notes import Notes, current_notes
from grip_edge_middleware.rows import Params
from grip_edge_middleware.sources import Observer, Written
from grip_edge_middleware.sources.django.schema import schema, table_name
from grip_edge_middleware.sources.ledger import Ledger
from grip_edge_middleware.sources.statements import rows_of, writes_of
from grip_edge_middleware.sources.transactions import Entry, reading_for, tell, wrap
from grip_edge_middleware.sql import Write

logger = logging.getLogger(__name__)

_FOLLOWED = "_grip_edge_followed"

# Django's own, of which each savepoint has another text.
_TRANSACTION = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ", "BEGIN")

# With these the database says that it did nothing. With any other it may have, before the
# connection was lost.
_REFUSALS = (IntegrityError, DataError, ProgrammingError, NotSupportedError)


class Writer(Protocol):
    """Wants to know what statements write."""

    def wrote(
        self,
        connection: BaseDatabaseWrapper,
        writes: Sequence[Write] | None,
        keys: Sequence[object] = (),
    ) -> None:
        """Note the writes; None if they can be anything.

        `keys` are the primary keys of the only rows that were touched, if that is known.
        """

    @property
    def has_outbox(self) -> bool:
        """Whether what is written is to be in one transaction with a row of the outbox."""

    def before_commit(self, connection: BaseDatabaseWrapper) -> None:
        """Write what belongs into the transaction that is about to be committed."""


writers: list[Writer] = []
"""Who is told of the statements on all connections that are followed."""


@dataclass(slots=True)
class Own:
    """A table whose rows are known by other means while statements write them."""

    table: str
    has_run: bool = False
    """Whether a statement wrote the table, or may have."""


@dataclass(slots=True)
class Relating(Own):
    """A many-to-many change under way, of which both sides are known: it ends with its block."""

    block: object = None
    pks: frozenset[Any] = frozenset()
    """Those of the other side, before they are cleared."""


@dataclass(slots=True)
class Followed:
    """What is known of a connection."""

    ledger: Ledger[Entry] = field(default_factory=Ledger)
    rows: dict[Observer, Written] = field(default_factory=dict)
    """What was written into the outbox, to be told with the commit."""
    relating: list[Relating] = field(default_factory=list)


_own: ContextVar[Own | None] = ContextVar("grip_edge_own", default=None)

deleting: ContextVar[frozenset[str]] = ContextVar("grip_edge_deleting", default=frozenset())
"""The many-to-many tables of the objects that are being deleted: both sides are known."""


@contextmanager
def known_otherwise(db_table: str) -> Iterator[Own]:
    """Have nobody told of the statements that write this table in this block."""
    own = Own(table_name(db_table))
    token = _own.set(own)
    try:
        yield own
    finally:
        _own.reset(token)


@contextmanager
def unnoticed() -> Iterator[None]:
    """Read in this block without the page having read it."""
    token = current_notes.set(None)
    try:
        yield
    finally:
        current_notes.reset(token)


def note(connection: BaseDatabaseWrapper, observer: Observer, changes: Sequence[Change]) -> None:
    """Tell of the changes when the connection's transaction is committed, now if it has none."""
    if not changes:
        return
    if _is_of_test_case(connection):
        # Never committed. This way `captureOnCommitCallbacks(execute=True)` tells.
        connection.on_commit(lambda: observer.tell(changes), robust=True)
    elif _is_in_transaction(connection):
        follow(connection).ledger.add([(observer, changes)])
    else:
        observer.tell(changes)


def _is_of_test_case(connection: BaseDatabaseWrapper) -> bool:
    blocks: list[Any] = connection.atomic_blocks
    return bool(connection.in_atomic_block and blocks and blocks[0]._from_testcase)


def _is_in_transaction(connection: BaseDatabaseWrapper) -> bool:
    # `autocommit` is False, too, of a connection that was not opened yet.
    is_open = connection.connection is not None
    return connection.in_atomic_block or (is_open and not connection.autocommit)


def follow(connection: BaseDatabaseWrapper) -> Followed:
    """Have the connection's calls keep its ledger, and return what is known of it."""
    followed: Followed | None = vars(connection).get(_FOLLOWED)
    if followed is not None:
        return followed
    followed = Followed()
    setattr(connection, _FOLLOWED, followed)
    ledger = followed.ledger

    def prepare(*_: object) -> None:
        if ledger.entries():
            for writer in writers:
                writer.before_commit(connection)

    def submit(*_: object) -> None:
        rows, followed.rows = followed.rows, {}
        tell(ledger.take(), rows)

    def forget(*_: object) -> None:
        followed.rows = {}
        ledger.take()

    def prepare_if_on(autocommit: bool) -> None:
        if autocommit:
            prepare()

    def submit_if_on(autocommit: bool) -> None:
        # SQLite and MySQL commit what is open.
        if autocommit:
            submit()

    # A COMMIT that fails may have been made all the same, so it counts as made: a purge too many
    # is harmless, one too few is not.
    wrap(connection, "_commit", submit, on_error=submit, before=prepare)
    wrap(connection, "_set_autocommit", submit_if_on, before=prepare_if_on)
    wrap(connection, "_rollback", forget, on_error=forget)
    wrap(connection, "_close", forget, on_error=forget)
    wrap(connection, "_savepoint", ledger.savepoint)
    wrap(connection, "_savepoint_rollback", ledger.rollback_to)
    wrap(connection, "_savepoint_commit", ledger.release)
    # Not at the end, where `with connection.execute_wrapper(...)` takes its own off again.
    connection.execute_wrappers.insert(0, _execute)
    return followed


def is_relating(connection: BaseDatabaseWrapper, table: str) -> bool:
    """Whether a many-to-many change writes this table, and take note that it did."""
    followed, blocks = follow(connection), connection.atomic_blocks
    followed.relating = [r for r in followed.relating if any(r.block is b for b in blocks)]
    found = [relating for relating in followed.relating if relating.table == table]
    for relating in found:
        relating.has_run = True
    return bool(found)


# --- transactions -----------------------------------------------------------------------------


def with_row(connection: BaseDatabaseWrapper) -> AbstractContextManager[None]:
    """Have what is written in this block in a transaction, for a row of the outbox to be in it."""
    if _lacks_transaction(connection):
        return transaction.atomic(using=connection.alias)
    return nullcontext()


def _lacks_transaction(connection: BaseDatabaseWrapper) -> bool:
    return any(writer.has_outbox for writer in writers) and not _is_in_transaction(connection)


def lock_before_reading(connection: BaseDatabaseWrapper, db_table: str) -> None:
    """Take the lock that the write to come takes, before what it changes is read.

    In SQLite, a transaction that has read cannot write any more once another connection did: it
    fails at once, where one that begins with a write waits for its turn.
    """
    if connection.vendor == "sqlite" and _is_in_transaction(connection):
        cursor: Any = connection.create_cursor()
        with closing(cursor):
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(db_table)} WHERE 0")  # noqa: S608


# --- statements -------------------------------------------------------------------------------


def _execute(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    connection: BaseDatabaseWrapper = context["connection"]
    if _lacks_transaction(connection) and _may_write(sql, connection):
        with with_row(connection):
            return _execute_and_note(execute, sql, params, many, context)
    return _execute_and_note(execute, sql, params, many, context)


def _execute_and_note(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    connection: BaseDatabaseWrapper = context["connection"]
    values: Params = () if many or params is None else params
    try:
        result = execute(sql, params, many, context)
    except BaseException as error:
        # Without a transaction, the statement is its own commit.
        if not isinstance(error, _REFUSALS) and not _is_in_transaction(connection):
            _note_writes(sql, values, connection, None)
        raise
    notes = current_notes.get()
    if notes is not None and notes.scopes is not None:
        with reading_for(notes):
            _note_reads(notes, _text(sql, connection), values)
    _note_writes(sql, values, connection, context["cursor"])
    return result


def _note_reads(notes: Notes, text: str, params: Params) -> None:
    if not text.startswith(_TRANSACTION):
        notes.note_reads(text, params, schema().primary_keys)


def _note_writes(sql: Any, params: Params, connection: BaseDatabaseWrapper, cursor: Any) -> None:
    """Tell all writers. Without a cursor, nobody knows how many rows it were."""
    if not writers or _only_reads(sql):
        return
    keys: tuple[object, ...] = ()
    try:
        text = _text(sql, connection)
        writes = writes_of(text, cursor)
        if writes is not None:
            writes = [write for write in writes if not _is_known(write)]
            keys = rows_of(text, params, writes, schema().primary_keys)
    except Exception:
        logger.exception("what a statement writes was not understood; all pages count as changed")
        writes = None
    if writes is None or writes:
        tell_writers(connection, writes, keys)


def tell_writers(
    connection: BaseDatabaseWrapper,
    writes: Sequence[Write] | None,
    keys: Sequence[object] = (),
) -> None:
    """Tell all writers of what was written; None if it can be anything."""
    for writer in writers:
        writer.wrote(connection, writes, keys)


def _only_reads(sql: Any) -> bool:
    """Whether the text tells at once: most do."""
    if not isinstance(sql, str):
        return False
    return (sql.startswith("SELECT ") and ";" not in sql) or sql.startswith(_TRANSACTION)


def _may_write(sql: Any, connection: BaseDatabaseWrapper) -> bool:
    """Whether a transaction of its own can be made for a statement, and is worth it."""
    try:
        # What is not understood may end the transaction by itself: CALL, DO.
        if _only_reads(sql) or not writes_of(text := _text(sql, connection)):
            return False
    except Exception:
        return False  # it is logged when it is executed
    # SQLite cannot commit while the app has yet to fetch what a statement returns.
    return connection.vendor != "sqlite" or "RETURNING" not in text.upper()


def _text(sql: Any, connection: BaseDatabaseWrapper) -> str:
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes):
        return sql.decode()
    # psycopg's `sql.SQL` and the like
    as_string = getattr(sql, "as_string", None)
    return str(sql if as_string is None else as_string(connection.connection))


def _is_known(write: Write) -> bool:
    own = _own.get()
    if own is None or own.table != write.table:
        return False
    own.has_run = True
    return True
