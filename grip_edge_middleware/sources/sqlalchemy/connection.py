"""What connections execute, and which of it lasts.

Only the connection knows the outcome of a transaction: a Session's `after_commit` also fires when
a savepoint is released, and while an outer transaction goes on. So the dialect's own calls for
commit, rollback, savepoints and statements are followed. They are part of SQLAlchemy's dialect
interface and wrapped on the engine's instance; listeners on the connection would slow down every
statement.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import lru_cache, wraps
from threading import Lock
from typing import Any, Protocol
from weakref import WeakSet

from sqlalchemy import CompoundSelect, Select, Table
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import InstanceState
from sqlalchemy.sql.visitors import iterate

from grip_edge_middleware.changes import Change
from grip_edge_middleware.notes import current_notes
from grip_edge_middleware.outbox import TABLE as OUTBOX
from grip_edge_middleware.rows import Params
from grip_edge_middleware.sources import Observer, Written
from grip_edge_middleware.sources.ledger import Ledger
from grip_edge_middleware.sources.sqlalchemy.flush import Flush, Saved, flushing
from grip_edge_middleware.sources.sqlalchemy.schema import known
from grip_edge_middleware.sources.statements import rows_of, touched_nothing, writes_of
from grip_edge_middleware.sources.transactions import Entry, reading_for, tell, wrap
from grip_edge_middleware.sql import Write
from grip_edge_middleware.types import Operation

logger = logging.getLogger(__name__)

_LEDGER = "grip_edge_ledger"
_ROWS = "grip_edge_outbox_rows"
_FOLLOWED = "_grip_edge_is_followed"


class Writer(Protocol):
    """Wants to know what is written."""

    def wrote(
        self, connection: Connection, writes: Sequence[Write] | None, keys: Sequence[object]
    ) -> None:
        """Note the writes of a statement; None if they can be anything.

        `keys` are the primary keys of the only rows that it can have touched, if it tells.
        """

    def will_save(self, state: InstanceState[Any], saved: Saved) -> None:
        """Look at an object that a flush is about to write."""

    def flushed(self, flush: Flush) -> None:
        """Note the objects that a flush has written."""

    def before_commit(self, dialect: Dialect, connection: Any) -> None:
        """Write what belongs into the transaction that is about to be committed."""


writers: list[Writer] = []
"""Who is told of the statements on all connections that are followed."""


def ledger(connection: Any) -> Ledger[Entry]:
    """Return the ledger of a connection, in whichever of its layers it comes."""
    info = connection.info
    found: Ledger[Entry] | None = info.get(_LEDGER)
    if found is None:
        found = info[_LEDGER] = Ledger()
    return found


def note(connection: Connection, observer: Observer, changes: Sequence[Change]) -> None:
    """Tell of the changes when the connection's transaction is committed."""
    if connection._is_autocommit_isolation():
        observer.tell(changes)  # visible already, whatever the session does then
    else:
        ledger(connection).add([(observer, change) for change in changes])


def follow(dialect: Dialect) -> None:
    """Have the dialect's calls keep the ledgers of its connections."""
    if getattr(dialect, _FOLLOWED, False):
        return
    # Who comes second waits: else its first statements would go unseen.
    with _following:
        if not getattr(dialect, _FOLLOWED, False):
            _wrap_all(dialect)
            setattr(dialect, _FOLLOWED, True)


_following = Lock()


def _after_fork() -> None:
    """Another thread of the parent may have held it."""
    global _following
    _following = Lock()


os.register_at_fork(after_in_child=_after_fork)


def _wrap_all(dialect: Dialect) -> None:
    def prepare(connection: Any, *_: Any) -> None:
        if connection.info.get(_LEDGER) is not None:
            for writer in writers:
                writer.before_commit(dialect, connection)

    # A COMMIT that fails may have been made all the same, so it counts as made: a purge too many
    # is harmless, one too few is not.
    wrap(dialect, "do_commit", _submit, on_error=_submit, before=prepare)
    wrap(dialect, "do_prepare_twophase", before=prepare)
    wrap(dialect, "do_commit_twophase", _submit, on_error=_submit)
    wrap(dialect, "do_rollback", _forget, on_error=_forget)
    wrap(dialect, "do_rollback_twophase", _forget, on_error=_forget)
    wrap(dialect, "do_savepoint", lambda c, name: ledger(c).savepoint(name))
    wrap(dialect, "do_rollback_to_savepoint", lambda c, name: ledger(c).rollback_to(name))
    wrap(dialect, "do_release_savepoint", lambda c, name: ledger(c).release(name))
    _wrap_execute(dialect)


# --- transactions -----------------------------------------------------------------------------


def _submit(connection: Any, *_: Any) -> None:
    tell(_take(connection), connection.info.pop(_ROWS, None))


def _forget(connection: Any, *_: Any) -> None:
    connection.info.pop(_ROWS, None)
    _take(connection)


def _take(connection: Any) -> list[Entry]:
    found: Ledger[Entry] | None = connection.info.get(_LEDGER)
    return [] if found is None else found.take()


def note_row(connection: Any, observer: Observer, written: Written) -> None:
    """Have the outbox's row noted as sent when the transaction is committed."""
    connection.info.setdefault(_ROWS, {})[observer] = written


# --- statements -------------------------------------------------------------------------------


def _wrap_execute(dialect: Dialect) -> None:
    do_execute, do_executemany = dialect.do_execute, dialect.do_executemany
    do_execute_no_params = dialect.do_execute_no_params

    @wraps(do_execute)
    def execute(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        do_execute(cursor, statement, parameters, context)
        _executed(cursor, statement, parameters, context)

    @wraps(do_executemany)
    def executemany(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        do_executemany(cursor, statement, parameters, context)
        _executed(cursor, statement, (), context)

    @wraps(do_execute_no_params)
    def execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
        do_execute_no_params(cursor, statement, context)
        _executed(cursor, statement, (), context)

    dialect.do_execute = execute  # type: ignore[method-assign]
    dialect.do_executemany = executemany  # type: ignore[method-assign]
    dialect.do_execute_no_params = execute_no_params  # type: ignore[method-assign]


def _executed(cursor: Any, statement: str, parameters: Params, context: Any) -> None:
    if context is None:
        return  # the dialect's own
    notes = current_notes.get()
    if notes is not None and notes.scopes is not None:
        with reading_for(notes):
            _learn_from(context.compiled)
            notes.note_reads(statement, parameters, known.primary_keys)
    if writers:
        _note_writes(cursor, statement, parameters, context)


def _note_writes(cursor: Any, statement: str, parameters: Params, context: Any) -> None:
    flush = flushing.get()
    if flush is not None and context.compiled in flush.told:
        return
    try:
        writes = _writes(cursor, statement, context)
        if writes and _is_told_by_objects(writes, context):
            return
        keys = rows_of(statement, parameters, writes, known.primary_keys)
    except Exception:
        logger.exception("what a statement writes was not understood; all pages count as changed")
        writes, keys = None, ()
    if writes is None or writes:
        for writer in writers:
            writer.wrote(context.root_connection, writes, keys)


def _is_told_by_objects(writes: Sequence[Write], context: Any) -> bool:
    """Whether it is a flush that writes, and not one of the app's hooks in it."""
    flush = flushing.get()
    if flush is None:
        return False
    if "compiled_cache" in context.execution_options and flush.saves(writes[0].table):
        flush.told.add(context.compiled)
        return True
    if "compiled_cache" in context.execution_options:
        return False
    flush.related.extend(
        (context.root_connection, write) for write in writes if flush.relates(write.table)
    )
    return False


def _writes(cursor: Any, statement: str, context: Any) -> Sequence[Write] | None:
    """Return what a statement wrote; None if it can be anything."""
    compiled = context.compiled
    if compiled is None or getattr(compiled, "ctes", None):
        return writes_of(statement, cursor)
    if type(compiled.statement) in _SELECTS:
        return ()
    if not context.is_crud or _says_more(compiled):
        return writes_of(statement, cursor)
    return () if touched_nothing(statement, cursor) else _compiled_writes(compiled, context)


# Anything else may be text of the app's, or compiled by it.
_SELECTS = frozenset({Select, CompoundSelect})


def _says_more(compiled: Any) -> bool:
    """Whether it is INSERT OR REPLACE, or MySQL's UPDATE of several tables."""
    is_of_several = getattr(compiled.compile_state, "is_multitable", False)
    return is_of_several or bool(getattr(compiled.statement, "_prefixes", ()))


def _compiled_writes(compiled: Any, context: Any) -> Sequence[Write] | None:
    table = compiled.compile_state.dml_table
    if not isinstance(table, Table):
        return writes_of(str(compiled))
    if table.name == OUTBOX:
        return ()
    known.learn(table.metadata)
    if context.isinsert:
        # ON CONFLICT, ON DUPLICATE KEY
        is_upsert = getattr(compiled.statement, "_post_values_clause", None) is not None
        return _written(table.name, "insert", *(("update",) if is_upsert else ()))
    return _written(table.name, "update" if context.isupdate else "delete")


@lru_cache(maxsize=4096)
def _written(table: str, *operations: Operation) -> Sequence[Write]:
    return (Write(table.lower(), frozenset(operations)),)


_learnt: WeakSet[Any] = WeakSet()


def _learn_from(compiled: Any) -> None:
    """Take in the tables of a statement that is compiled for the first time."""
    if compiled is None or compiled.statement is None or compiled in _learnt:
        return
    for element in iterate(compiled.statement):
        if isinstance(element, Table):
            known.learn(element.metadata)
    _learnt.add(compiled)  # last: another thread may ask meanwhile
