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
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, wraps
from threading import Lock
from typing import Any, Protocol

from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import InstanceState

from grip_edge_middleware.changes import Change
from grip_edge_middleware.notes import Notes, current_notes
from grip_edge_middleware.rows import Params, Scopes
from grip_edge_middleware.sources import Observer, Written, suppressed
from grip_edge_middleware.sources.ledger import Ledger
from grip_edge_middleware.sources.sqlalchemy.effects import (
    ANYTHING,
    EFFECT,
    LASTING,
    NOTHING,
    Effect,
    Keys,
    effect_of,
    reading_of,
)
from grip_edge_middleware.sources.sqlalchemy.flush import Flush, Saved, flushing
from grip_edge_middleware.sources.sqlalchemy.schema import known
from grip_edge_middleware.sources.statements import found_nothing
from grip_edge_middleware.sources.transactions import Entry, note_unclear, safely, tell, wrap

logger = logging.getLogger(__name__)

_LEDGER = "grip_edge_ledger"
_ROWS = "grip_edge_outbox_rows"
_FOLLOWED = "_grip_edge_is_followed"


class Writer(Protocol):
    """Wants to know what is written."""

    @property
    def observer(self) -> Observer:
        """Who is told in the end."""

    def changes_of(self, effect: Effect, keys: Keys) -> Sequence[Change]:
        """Return what a statement changes. Never raises."""

    def will_save(self, state: InstanceState[Any], saved: Saved) -> None:
        """Look at an object that a flush is about to write."""

    def flushed(self, flush: Flush) -> None:
        """Note the objects that a flush has written."""

    def before_commit(self, dialect: Dialect, connection: Any) -> None:
        """Write what belongs into the transaction that is about to be committed."""


writers: list[Writer] = []
"""Who is told of the statements on all connections that are followed."""

preparers: list[Writer] = []
"""Those of them that write something before a commit."""

PutOff = tuple[Writer, Effect, Keys]
"""A statement of which the changes are not yet found out, and whom to tell."""


def open_ledger(connection: Connection) -> Ledger[Entry | PutOff] | None:
    """Return the ledger of a connection's transaction; None if each statement is its own."""
    info = connection.connection.info
    found: Ledger[Entry | PutOff] | None = info.get(_LEDGER)
    if found is None and not connection._is_autocommit_isolation():
        found = info[_LEDGER] = Ledger()
    return found


def note(connection: Connection, observer: Observer, changes: Sequence[Change]) -> None:
    """Tell of the changes when the connection's transaction is committed."""
    if not changes:
        return
    noted = open_ledger(connection)
    if noted is None:
        observer.tell(changes)  # visible already, whatever the session does then
    else:
        noted.innermost.append((observer, changes))


def entries(connection: Any) -> list[Entry]:
    """Return what a commit would tell now."""
    noted: Ledger[Entry | PutOff] | None = connection.info.get(_LEDGER)
    if noted is None:
        return []
    noted.rewrite(lambda entries: [*_found_out(entries)])
    return [*_found_out(noted.entries())]


def _found_out(entries: Sequence[Entry | PutOff]) -> Sequence[Entry]:
    """Find out what was put off, in its place among the rest."""
    for entry in entries:
        if len(entry) == 3:
            return _find_out(entries)
    return entries  # type: ignore[return-value]


def _find_out(entries: Iterable[Entry | PutOff]) -> list[Entry]:
    found: list[Entry] = []
    put_off: list[PutOff] = []
    # A hook of another connection's flush may commit: that is none of the flush's.
    token = flushing.set(None)
    try:
        for entry in entries:
            if len(entry) == 3:
                put_off.append(entry)
            else:
                found += _changes_of(put_off)
                found.append(entry)
                put_off.clear()
        found += _changes_of(put_off)
    finally:
        flushing.reset(token)
    return found


def _changes_of(put_off: Iterable[PutOff]) -> Iterator[Entry]:
    """Look at each statement once, with all of its keys."""
    merged: dict[tuple[Writer, Effect, type | None], dict[object, None]] = {}
    for writer, effect, keys in put_off:
        # A key of another kind may be one of which less can be said.
        kind = type(keys[0]) if keys else None
        merged.setdefault((writer, effect, kind), {}).update(dict.fromkeys(keys))
    for (writer, effect, _), unique in merged.items():
        yield writer.observer, writer.changes_of(effect, tuple(unique))


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
    # A COMMIT that fails may have been made all the same, so it counts as made: a purge too many
    # is harmless, one too few is not.
    _wrap_end(dialect, "do_commit", _submit, before=partial(_prepare, dialect))
    _wrap_end(dialect, "do_rollback", _forget)
    wrap(dialect, "do_prepare_twophase", before=partial(_prepare, dialect))
    wrap(dialect, "do_commit_twophase", _submit, on_error=_submit)
    wrap(dialect, "do_rollback_twophase", _forget, on_error=_forget)
    wrap(dialect, "do_savepoint", _follow_savepoint(Ledger.savepoint))
    wrap(dialect, "do_rollback_to_savepoint", _follow_savepoint(Ledger.rollback_to))
    wrap(dialect, "do_release_savepoint", _follow_savepoint(Ledger.release))
    _wrap_execute(dialect)


# --- transactions -----------------------------------------------------------------------------


def _wrap_end(
    dialect: Dialect,
    name: str,
    then: Callable[[Any], None],
    *,
    before: Callable[[Any], None] | None = None,
) -> None:
    """Have an end of transactions followed, however it goes.

    Each has one or two, as a connection that is given back is rolled back. So it is made short,
    above all for those that have changed nothing.
    """
    original = getattr(dialect, name)

    @wraps(original)
    def end(connection: Any) -> None:
        try:
            is_noted = _LEDGER in connection.info
        except Exception:  # it is none of a pool's
            is_noted = False
        if not is_noted:
            return original(connection)  # type: ignore[no-any-return]
        if before is not None and preparers:
            safely(before, connection)
        try:
            original(connection)
        finally:
            safely(then, connection)

    setattr(dialect, name, end)


def _follow_savepoint(
    follow_in: Callable[[Ledger[Entry | PutOff], str], None],
) -> Callable[[Any, str], None]:
    """Return what a savepoint does to a ledger, if there is one: it may begin later as well."""

    def follow_savepoint(connection: Any, name: str) -> None:
        noted: Ledger[Entry | PutOff] | None = connection.info.get(_LEDGER)
        if noted is not None:
            follow_in(noted, name)

    return follow_savepoint


def _prepare(dialect: Dialect, connection: Any, *_: Any) -> None:
    for writer in preparers:
        writer.before_commit(dialect, connection)


def _submit(connection: Any, *_: Any) -> None:
    info = connection.info
    noted: Ledger[Entry | PutOff] | None = info.pop(_LEDGER, None)
    rows: dict[Observer, Written] | None = info.pop(_ROWS, None)
    if noted is not None:
        tell(_found_out(noted.entries()), rows)


def _forget(connection: Any, *_: Any) -> None:
    info = connection.info
    info.pop(_LEDGER, None)
    info.pop(_ROWS, None)


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
        if context is None:
            return  # the dialect's own
        # Most statements are known to read only, and most reads are nobody's: as `_executed` has
        # it, but nothing is called for these.
        notes = current_notes.get()
        if notes is not None and notes.scopes is not None:
            _note_reads(notes, notes.scopes, statement, parameters, context.compiled)
        effect = getattr(context.compiled, EFFECT, None)
        if effect is not NOTHING and writers:
            _note_writes(effect, cursor, statement, parameters, context)

    @wraps(do_executemany)
    def executemany(cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        do_executemany(cursor, statement, parameters, context)
        if context is not None:
            _executed(cursor, statement, (), context)

    @wraps(do_execute_no_params)
    def execute_no_params(cursor: Any, statement: str, context: Any = None) -> None:
        do_execute_no_params(cursor, statement, context)
        if context is not None:
            _executed(cursor, statement, (), context)

    dialect.do_execute = execute  # type: ignore[method-assign]
    dialect.do_executemany = executemany  # type: ignore[method-assign]
    dialect.do_execute_no_params = execute_no_params  # type: ignore[method-assign]


def _executed(cursor: Any, statement: str, parameters: Params, context: Any) -> None:
    notes = current_notes.get()
    if notes is not None and notes.scopes is not None:
        _note_reads(notes, notes.scopes, statement, parameters, context.compiled)
    if writers:
        effect = getattr(context.compiled, EFFECT, None)
        _note_writes(effect, cursor, statement, parameters, context)


def _note_reads(
    notes: Notes, scopes: Scopes, statement: str, parameters: Params, compiled: Any
) -> None:
    try:
        notes.note(reading_of(statement, compiled, scopes), parameters)
    except Exception as error:
        note_unclear(notes, error)


def _note_writes(
    effect: Effect | None, cursor: Any, statement: str, parameters: Params, context: Any
) -> None:
    # Each statement that writes pays for this, and mostly for calls: so there are few.
    compiled, under_way = context.compiled, flushing.get()
    if under_way is not None and compiled in under_way.told:
        return
    try:
        if effect is None or (
            effect.text and (effect.text is not statement or effect.version != known.version)
        ):
            effect = effect_of(statement, compiled)
        if effect.is_nothing or (effect.is_counted and found_nothing(cursor)):
            return
        if under_way is not None and _is_told_by_objects(under_way, effect, context):
            return
        keys = effect.keys(parameters)
    except Exception:
        logger.exception("what a statement writes was not understood; all pages count as changed")
        effect, keys = ANYTHING, ()
    connection, noted = context.root_connection, None
    # What is told of it may depend on how far a flush is, or on what becomes of the keys.
    if under_way is None and not suppressed.get() and LASTING.issuperset(map(type, keys)):
        noted = open_ledger(connection)
    if noted is None:
        _note_now(connection, effect, keys)
        return
    # What changes is found out after the commit: a rollback has nothing to do, and what is executed
    # often is looked at once.
    innermost = noted.innermost
    for writer in writers:
        innermost.append((writer, effect, keys))


def _note_now(connection: Connection, effect: Effect, keys: Keys) -> None:
    for writer in writers:
        if not writer.observer.is_suppressed:
            note(connection, writer.observer, writer.changes_of(effect, keys))


def _is_told_by_objects(under_way: Flush, effect: Effect, context: Any) -> bool:
    """Whether it is a flush that writes, and not one of the app's hooks in it."""
    if not effect.writes:
        return False
    if "compiled_cache" in context.execution_options:
        if not under_way.saves(effect.writes[0].table):
            return False
        under_way.told.add(context.compiled)
        return True
    under_way.related.extend(
        (context.root_connection, write)
        for write in effect.writes
        if under_way.relates(write.table)
    )
    return False
