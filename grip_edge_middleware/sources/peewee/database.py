"""What databases execute, and which of it lasts.

peewee's own `after_commit` keeps what a savepoint's rollback undoes, and forgets everything if the
COMMIT reports an error after it was made. So a database's own calls for begin, commit, rollback and
statements are followed, wrapped on the instance, whatever its class makes of them.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial, wraps
from typing import Any, Protocol

from peewee import Database, Proxy

from grip_edge_middleware.changes import Change
from grip_edge_middleware.notes import current_notes
from grip_edge_middleware.rows import Params
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.ledger import Ledger
from grip_edge_middleware.sources.peewee.schema import schema
from grip_edge_middleware.sources.statements import rows_of, writes_of
from grip_edge_middleware.sources.transactions import Entry, reading_for, safely, tell, wrap
from grip_edge_middleware.sql import Write

logger = logging.getLogger(__name__)

_LEDGERS = "_grip_edge_ledgers"

_MANUAL = type(Database(None).manual_commit())

_following = threading.Lock()

# Savepoints have no call of their own: peewee executes these statements, and so may the app.
_CONTROL = re.compile(
    r"\s*(?:"
    r"(?P<begin>BEGIN|START\s+TRANSACTION)\b.*"
    r"|(?P<commit>COMMIT|END)(?:\s+WORK|\s+TRANSACTION)?"
    r"|(?P<rollback>ROLLBACK)(?:\s+WORK|\s+TRANSACTION)?"
    r"|SAVEPOINT\s+(?P<savepoint>\S+?)"
    r"|RELEASE(?:\s+SAVEPOINT)?\s+(?P<release>\S+?)"
    r"|ROLLBACK(?:\s+WORK|\s+TRANSACTION)?\s+TO(?:\s+SAVEPOINT)?\s+(?P<rollback_to>\S+?)"
    r")\s*;?\s*$",
    re.IGNORECASE | re.DOTALL,
)


class Writer(Protocol):
    """Wants to know what statements write."""

    def wrote(
        self,
        database: Database,
        writes: Sequence[Write] | None,
        keys: Sequence[object] = (),
    ) -> None:
        """Note the writes; None if they can be anything.

        `keys` are the primary keys of the only rows that were touched, if that is known.
        """


writers: list[Writer] = []
"""Who is told of the statements on all databases that are followed."""


class Own:
    """The statements of a save, of which the objects tell what they mean."""

    def __init__(self, expected: Collection[Write]) -> None:
        self._expected = expected
        self.database: Database | None = None
        """Where they were executed, if they were and did anything."""
        self.executed: list[Write] = []

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Have these statements told by nobody else in this block."""
        token = _own.set(self)
        try:
            yield
        finally:
            _own.reset(token)

    def claims(self, database: Database, writes: Sequence[Write]) -> bool:
        """Whether a statement that was executed is one of these."""
        is_own = len(writes) == 1 and writes[0] in self._expected
        if is_own:
            self.database = database
            self.executed.append(writes[0])
        return is_own


_own: ContextVar[Own | None] = ContextVar("grip_edge_own", default=None)


def note(database: Database, observer: Observer, changes: Sequence[Change]) -> None:
    """Tell of the changes when the database's open transaction is committed; at once without."""
    if not changes:
        return
    if (ledger := _ledger(database)) is not None:
        ledger.add([(observer, changes)])
    elif database.in_transaction() and not _is_manual(database):
        # Its BEGIN was not seen: it came before us, or asyncpg's own transactions are used.
        database.after_commit(partial(observer.tell, changes))
    else:
        observer.tell(changes)


# --- how databases are met --------------------------------------------------------------------


def resolve(target: object) -> Database | None:
    """Return the database that a user names, perhaps by a proxy; None if it is none."""
    if isinstance(target, Proxy):
        target = target.obj
    return target if isinstance(target, Database) else None


@cache
def follow_all() -> None:
    """Follow every database from its next transaction or statement on."""
    kind: Any = Database
    push, execute, execute_sql = kind.push_transaction, kind.execute, kind.execute_sql

    @wraps(push)
    def push_and_meet(self: Database, transaction: Any) -> None:
        push(self, transaction)
        if follow(self) and not _is_manual(self):
            _begin(self)  # which came before

    @wraps(execute)
    def meet_and_execute(self: Database, query: Any, **options: Any) -> Any:
        follow(self)
        return execute(self, query, **options)

    @wraps(execute_sql)
    def meet_and_execute_sql(self: Any, sql: str, params: Any = None) -> Any:
        again = self.execute_sql if follow(self) else partial(execute_sql, self)
        return again(sql, params)

    kind.push_transaction = push_and_meet
    kind.execute = meet_and_execute
    kind.execute_sql = meet_and_execute_sql


def follow(database: Database) -> bool:
    """Have the database's calls keep the ledgers of its connections; False if they do."""
    if _LEDGERS in vars(database):
        return False

    def followed_by(then: Callable[[Database], None]) -> Callable[..., None]:
        return lambda *_, **__: then(database)

    with _following:
        if _LEDGERS in vars(database):
            return False
        setattr(database, _LEDGERS, {})
        wrap(database, "begin", followed_by(_begin))
        wrap(database, "commit", followed_by(_commit), on_error=followed_by(_submit))
        wrap(database, "rollback", followed_by(_rollback), on_error=followed_by(_rollback))
        _wrap_execute(database)
    return True


# --- transactions -----------------------------------------------------------------------------


def _ledgers(database: Database) -> dict[int, tuple[object, Ledger[Entry]]]:
    found: dict[int, tuple[object, Ledger[Entry]]] = getattr(database, _LEDGERS)
    return found


def _connection(database: Database) -> Any:
    """Return what stands for the connection of this thread or task.

    It is a list that peewee makes for each: the connection itself must not be held, or it would
    stay open when its thread ends.
    """
    return database._state.transactions  # type: ignore[attr-defined]


def _ledger(database: Database) -> Ledger[Entry] | None:
    """Return the ledger of the open transaction, None if none is."""
    found = _ledgers(database).get(id(_connection(database)))
    return None if found is None else found[1]


def _is_manual(database: Database) -> bool:
    return isinstance(database.top_transaction(), _MANUAL)  # type: ignore[no-untyped-call]


def _begin(database: Database) -> None:
    connection = _connection(database)
    _ledgers(database).setdefault(id(connection), (connection, Ledger()))


def _commit(database: Database) -> None:
    _submit(database)
    _rollback(database)


def _submit(database: Database) -> None:
    """Tell of everything.

    A COMMIT that fails may have been made all the same, so it counts as made: a purge too many is
    harmless, one too few is not. It may also be tried again, so nothing is forgotten.
    """
    if (ledger := _ledger(database)) is not None:
        entries = ledger.take()
        ledger.add(entries)
        tell(entries)


def _rollback(database: Database) -> None:
    _ledgers(database).pop(id(_connection(database)), None)


# --- statements -------------------------------------------------------------------------------


def _wrap_execute(database: Any) -> None:
    if hasattr(database, "aexecute_sql"):
        _wrap_aexecute_sql(database)
        return
    execute_sql = database.execute_sql

    @wraps(execute_sql)
    def wrapped(sql: str, params: Any = None, **options: Any) -> Any:
        with _noticing_commit(database, sql):
            cursor = execute_sql(sql, params, **options)
        _executed(database, sql, params or (), cursor)
        return cursor

    database.execute_sql = wrapped


def _wrap_aexecute_sql(database: Any) -> None:
    """Wrap what executes all statements of an asyncio database, also those of models."""
    aexecute_sql = database.aexecute_sql

    @wraps(aexecute_sql)
    async def wrapped(sql: str, params: Any = None, **options: Any) -> Any:
        with _noticing_commit(database, sql):
            cursor = await aexecute_sql(sql, params, **options)
        _executed(database, sql, params or (), cursor)
        return cursor

    database.aexecute_sql = wrapped


@contextmanager
def _noticing_commit(database: Database, sql: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if (control := _CONTROL.match(sql)) is not None and control["commit"]:
            safely(_submit, database)
        raise


def _executed(database: Database, sql: str, params: Params, cursor: Any) -> None:
    if (control := _CONTROL.match(sql)) is not None:
        safely(_controlled, database, control)
        return
    notes = current_notes.get()
    if notes is not None and notes.scopes is not None:
        with reading_for(notes):
            notes.note_reads(sql, params, schema().primary_keys)
    if writers:
        _note_writes(database, sql, params, cursor)


def _controlled(database: Database, control: re.Match[str]) -> None:
    match control.lastgroup:
        case "begin":
            _begin(database)
        case "commit":
            _commit(database)
        case "rollback":
            _rollback(database)
        case kind if kind is not None and (ledger := _ledger(database)) is not None:
            step = {
                "savepoint": ledger.savepoint,
                "release": ledger.release,
                "rollback_to": ledger.rollback_to,
            }
            # A name means the same with quotes and without.
            step[kind](control[kind].strip('"`').lower())


def _note_writes(database: Database, sql: str, params: Params, cursor: Any) -> None:
    keys: tuple[object, ...] = ()
    try:
        writes = writes_of(sql, cursor)
        keys = rows_of(sql, params, writes, schema().primary_keys)
    except Exception:
        logger.exception("what a statement writes was not understood; all pages count as changed")
        writes = None
    own = _own.get()
    if writes is not None and (not writes or (own is not None and own.claims(database, writes))):
        return
    for writer in writers:
        writer.wrote(database, writes, keys)
