"""Records in an SQLite file, for all processes of one machine.

What was written outlives a process that is killed at any moment: it is the system's to write. When
the machine itself loses power, the last transactions may be lost, but the file is whole.

The standard library only. Not for a network's file system, whose locks and shared memory SQLite
cannot rely on.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Lock
from typing import Any, TypeVar

from grip_edge_middleware.errors import StoreError
from grip_edge_middleware.stores.codec import Codec, decode_common, encode_common
from grip_edge_middleware.stores.records import Common, Record, Records, Snapshot
from grip_edge_middleware.stores.rules import PROCESSES, build_version, version_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

# "GRIP", so that no other program's file is taken for ours, and what our tables look like.
APPLICATION_ID = 0x47524950
SCHEMA = 1

BUSY_TIMEOUT_S = 1.0
# Connections that wait to be used again. More are opened when more threads ask at once.
MAX_IDLE = 8
# How long a fork waits for what is asked by other threads.
FORK_TIMEOUT_S = 2.0
# What is idle is remembered for so long.
FORGET_AFTER_S = 86_400.0
# Processors may differ by a little. What is more was done to the clock.
CLOCK_SLACK_S = 1.0
# SQLite takes at most 999 parameters in old versions.
MAX_PARAMETERS = 500

# What the gate reads comes first, and `work`, which may be long, last.
_TABLES = """
CREATE TABLE state (sequence INTEGER, at REAL, pending INTEGER, common TEXT);
CREATE TABLE record (
    key TEXT PRIMARY KEY, mark INTEGER, marked_at REAL, version TEXT, published TEXT,
    window_end REAL, due REAL, leased_until REAL, next_due REAL, is_only_purged INTEGER,
    is_pending INTEGER, since INTEGER, changed_at REAL, work TEXT
);
CREATE INDEX record_due ON record (next_due) WHERE next_due IS NOT NULL;
CREATE INDEX record_message ON record (next_due) WHERE next_due IS NOT NULL AND is_only_purged = 0;
CREATE INDEX record_since ON record (since) WHERE since IS NOT NULL;
CREATE INDEX record_idle ON record (changed_at) WHERE work = '';
"""

_LOAD = """
SELECT mark, marked_at, version, published, window_end, due, leased_until, work
FROM record WHERE key = ?
"""
_SAVE = """
INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    mark = excluded.mark, marked_at = excluded.marked_at, version = excluded.version,
    published = excluded.published, window_end = excluded.window_end, due = excluded.due,
    leased_until = excluded.leased_until, next_due = excluded.next_due,
    is_only_purged = excluded.is_only_purged, is_pending = excluded.is_pending,
    since = excluded.since, changed_at = excluded.changed_at, work = excluded.work
"""
_SHIFT = """
UPDATE record SET marked_at = marked_at - :by, window_end = window_end - :by, due = due - :by,
    leased_until = leased_until - :by, next_due = next_due - :by, changed_at = changed_at - :by
"""
_DUE = {
    True: "FROM record WHERE next_due <= ?",
    False: "FROM record WHERE next_due <= ? AND is_only_purged = 0",
}
_IDLE = """
SELECT key, mark, version FROM record WHERE work = '' AND changed_at < ?
ORDER BY changed_at LIMIT ?
"""

_WHAT_TO_DO = {
    sqlite3.SQLITE_BUSY: "another process has held it for too long; is that stopped?",
    sqlite3.SQLITE_CANTOPEN: "does its folder exist, and may this process write there?",
    sqlite3.SQLITE_CORRUPT: "stop all that use it, and delete it and what it left beside it",
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "is its disk full, or broken?",
    sqlite3.SQLITE_NOTADB: "name another file, or delete this one",
    sqlite3.SQLITE_READONLY: "let this process write to it, and into its folder",
}


class SQLiteShelf:
    """Records in the file at `path`, which is created when it is first asked for.

    Its folder must exist. `clock` gives Unix seconds, which all processes of a machine share. When
    that is set back, all that is due is moved back by as much.
    """

    def __init__(
        self, path: str | Path, codec: Codec, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = str(Path(path).absolute())
        self._codec = codec
        self._clock = clock
        # The highest number that this process gave out or saw: a file that is lost loses the last.
        self._highest = 0
        self._connections = _Connections(self._path, self._prepare)

    def now(self) -> float:
        """Return the machine's time."""
        return self._clock()

    def write(self, keys: Iterable[str], step: Callable[[Records], T]) -> T:
        """Run a step that changes records, while nobody else writes."""
        with self._asking(writes=True) as connection:
            connection.execute("BEGIN IMMEDIATE")
            records = _Transaction(connection, self._codec, self._clock(), self._highest)
            result = step(records)
            records.save()
            connection.execute("COMMIT")
        self._see(records.sequence)
        return result

    def read(self, keys: Iterable[str]) -> Records:
        """Return what the gate asks of these keys, all as it was at one moment."""
        with self._asking() as connection:
            connection.execute("BEGIN")
            sequence, common = _one(connection, "SELECT sequence, common FROM state")
            records = dict(_marks(connection, list(keys)))
            connection.execute("COMMIT")
        self._see(sequence)
        return Snapshot(sequence, decode_common(common), records)

    def due(self, now: float, limit: int, *, purges: bool) -> list[str]:
        """Return the keys that are due, the longest due first."""
        with self._asking() as connection:
            query = f"SELECT key {_DUE[purges]} ORDER BY next_due LIMIT ?"
            keys = [key for (key,) in connection.execute(query, (now, limit))]
            at = _one(connection, "SELECT at FROM state")[0]
        if self._clock() < at - CLOCK_SLACK_S:
            self.write((), lambda _: None)  # for it looks at the clock
        return keys

    def next_due(self, *, purges: bool) -> float | None:
        """Return when the next key is due."""
        with self._asking() as connection:
            query = f"SELECT min(next_due) {_DUE[purges]}"
            due: float | None = _one(connection, query, math.inf)[0]
        return due

    def oldest(self) -> int | None:
        """Return the number of the oldest change that is yet to be delivered."""
        with self._asking() as connection:
            query = "SELECT min(since) FROM record WHERE since IS NOT NULL"
            oldest: int | None = _one(connection, query)[0]
        return oldest

    def close(self) -> None:
        """Close what is open. It is opened again when it is asked."""
        self._connections.close()

    def after_fork(self) -> None:
        """Do nothing: what was open has been closed before the fork."""

    @contextmanager
    def _asking(self, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            with self._connections.lend(writes=writes) as connection:
                yield connection
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            hint = _WHAT_TO_DO.get(code, "delete it if this stays so")
            raise StoreError(f"{self._path}: {error}; {hint}") from error

    def _see(self, sequence: int) -> None:
        self._highest = max(self._highest, sequence)

    # --- the file -----------------------------------------------------------------------------

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # for all is read as it was at one moment
        is_new = self._is_new(connection)
        connection.execute("COMMIT")
        # What is committed is the system's, which writes it when it likes.
        connection.execute("PRAGMA synchronous = NORMAL")
        if not is_new:
            return
        _use_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        if self._is_new(connection):  # else another process was quicker
            self._create(connection)
        connection.execute("COMMIT")

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        found = (
            _one(connection, "PRAGMA application_id")[0],
            _one(connection, "PRAGMA user_version")[0],
        )
        if found == (APPLICATION_ID, SCHEMA):
            return False
        if found == (0, 0) and not _one(connection, "SELECT count(*) FROM sqlite_master")[0]:
            return True
        whose = (
            f"is of version {found[1]} of its tables, and this is version {SCHEMA}"
            if found[0] == APPLICATION_ID
            else "is a database of another program"
        )
        raise StoreError(f"{self._path} {whose}; name another file, or delete this one")

    def _create(self, connection: sqlite3.Connection) -> None:
        for statement in filter(str.strip, _TABLES.split(";")):
            connection.execute(statement)
        sequence = max(int(self._clock() * 1e6), self._highest + 1)
        version = build_version(sequence, secrets.randbelow(PROCESSES - 10**6))
        connection.execute(
            "INSERT INTO state VALUES (?, ?, 0, ?)",
            (sequence, self._clock(), encode_common(Common(version))),
        )
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _one(connection: sqlite3.Connection, query: str, *values: object) -> Any:
    return connection.execute(query, values).fetchone()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Have those who read wait for nobody. The file remembers it."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Of several that create the file at once, SQLite has all but one fail without waiting.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _marks(connection: sqlite3.Connection, keys: Sequence[str]) -> Iterator[tuple[str, Record]]:
    for first in range(0, len(keys), MAX_PARAMETERS):
        some = keys[first : first + MAX_PARAMETERS]
        query = (
            "SELECT key, mark, marked_at, version FROM record WHERE key IN "  # noqa: S608
            f"({','.join('?' * len(some))})"
        )
        for key, mark, marked_at, version in connection.execute(query, some):
            yield key, Record(mark, marked_at, version)


# --- records ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Kept:
    """A record within a transaction, and what the file has of it."""

    record: Record
    row: tuple[Any, ...] | None
    counted: bool = False
    """Whether it is among what is counted as pending."""


@dataclass(slots=True)
class _Transaction:
    """Records to change, each of them read when it is asked for."""

    _connection: sqlite3.Connection
    _codec: Codec
    _now: float
    _highest: int
    sequence: int = field(init=False)
    common: Common = field(init=False)
    _pending: int = field(init=False)
    _common_text: str = field(init=False)
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _edited: dict[str, _Kept] = field(default_factory=dict)
    _uncounted: dict[str, _Kept] = field(default_factory=dict)

    def __post_init__(self) -> None:
        last, at, self._pending, self._common_text = _one(self._connection, "SELECT * FROM state")
        self.sequence = max(last, self._highest) + 1
        self.common = decode_common(self._common_text)
        if self._now < at - CLOCK_SLACK_S:
            # What is due in an hour by a clock that went ahead is due now.
            self._connection.execute(_SHIFT, {"by": at - self._now})

    def get(self, key: str) -> Record | None:
        kept = self._load(key)
        return None if kept.row is None and key not in self._edited else kept.record

    def edit(self, key: str) -> Record:
        kept = self._edited[key] = self._uncounted[key] = self._load(key)
        return kept.record

    def pending(self) -> int:
        for kept in self._uncounted.values():
            is_pending = kept.record.is_pending
            self._pending += is_pending - kept.counted
            kept.counted = is_pending
        self._uncounted.clear()
        return self._pending

    def _load(self, key: str) -> _Kept:
        kept = self._kept.get(key)
        if kept is None:
            row = _one(self._connection, _LOAD, key)
            record = Record()
            if row is not None:
                *values, record.due, record.leased_until, work = row
                (record.mark, record.marked_at, record.version, record.published) = values[:4]
                record.window_end = values[4]
                self._codec.decode(work, record)
            kept = self._kept[key] = _Kept(record, row, record.is_pending)
        return kept

    def save(self) -> None:
        """Write what was changed, and forget as much of what is long idle."""
        rows = [row for key, kept in self._edited.items() if (row := self._row(key, kept))]
        self._connection.executemany(_SAVE, rows)
        self._forget(2 * len(rows))
        common = encode_common(self.common)
        self._connection.execute(
            "UPDATE state SET sequence = ?, at = ?, pending = ?, common = ?",
            (self.sequence, self._now, self.pending(), common),
        )

    def _row(self, key: str, kept: _Kept) -> tuple[Any, ...] | None:
        """Return what to write of a record, None if nothing was changed."""
        r = kept.record
        work = self._codec.encode(r)
        known = (r.mark, r.marked_at, r.version, r.published, r.window_end, r.due, r.leased_until)
        if (*known, work) == kept.row:
            return None
        next_due = None if r.next_due == math.inf else r.next_due
        told = (next_due, r.is_only_purged, r.is_pending, r.since)
        return (key, *known, *told, self._now, work)

    def _forget(self, limit: int) -> None:
        idle = self._connection.execute(_IDLE, (self._now - FORGET_AFTER_S, limit)).fetchall()
        for key, mark, version in idle:
            self._connection.execute("DELETE FROM record WHERE key = ?", (key,))
            self.common.forgotten = max(self.common.forgotten, mark)
            # Else it would have the version of before its changes again.
            self.common.first_version = version_of(self.common, Record(version=version))


# --- connections --------------------------------------------------------------------------------


class _Connections:
    """Those to one file, each lent to one thread for one transaction.

    So as many are open as threads ask at once, whose reads wait for no write, and none is left by a
    thread that ends. One that failed is not used again.

    SQLite keeps its locks in tables of the process, which a fork copies: a child would hold locks
    that the system knows nothing of. So before a fork all are closed.
    """

    def __init__(self, path: str, prepare: Callable[[sqlite3.Connection], None]) -> None:
        self._path = path
        self._prepare = prepare
        self._start_anew()
        _close_before_fork(self)

    def _start_anew(self) -> None:
        self._changed = Condition()
        self._writing = Lock()
        self._idle: list[_Open] = []
        self._lent = 0
        self._is_forking = False

    @contextmanager
    def lend(self, *, writes: bool) -> Iterator[sqlite3.Connection]:
        # SQLite lets one write at a time, and of those who wait whoever happens to ask next.
        with self._writing if writes else nullcontext(), self._lend() as connection:
            yield connection

    @contextmanager
    def _lend(self) -> Iterator[sqlite3.Connection]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_forking)
            self._lent += 1
        lent: _Open | None = None
        try:
            lent = self._take()
            yield lent.connection
        except BaseException:
            self._give_back(lent, is_well=False)
            raise
        self._give_back(lent, is_well=True)

    def _take(self) -> _Open:
        """Return a connection to the file that is there now: it may have been deleted."""
        there = _file_id(self._path)
        while self._idle:
            with self._changed:
                idle = self._idle.pop() if self._idle else None
            if idle is not None and idle.file_id == there:
                return idle
            if idle is not None:
                idle.connection.close()
                logger.warning("%s was deleted or replaced, with what waited in it", self._path)
        return self._open()

    def _open(self) -> _Open:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return _Open(connection, _file_id(self._path))

    def _give_back(self, lent: _Open | None, *, is_well: bool) -> None:
        with self._changed:
            is_kept = is_well and lent is not None and len(self._idle) < MAX_IDLE
            if is_kept and lent is not None:
                self._idle.append(lent)
        if not is_kept and lent is not None:
            lent.connection.close()
        with self._changed:
            self._lent -= 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
        for one in idle:
            one.connection.close()

    def before_fork(self) -> None:
        with self._changed:
            self._is_forking = True
            self._changed.wait_for(lambda: not self._lent, FORK_TIMEOUT_S)
        self.close()

    def after_fork_in_parent(self) -> None:
        with self._changed:
            self._is_forking = False
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        self._start_anew()


@dataclass(frozen=True, slots=True)
class _Open:
    connection: sqlite3.Connection
    file_id: tuple[int, int] | None


def _file_id(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - at each request
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _close_before_fork(connections: _Connections) -> None:
    reference = weakref.ref(connections)

    def call(method: Callable[[_Connections], None]) -> Callable[[], None]:
        def if_alive() -> None:
            if (alive := reference()) is not None:
                method(alive)

        return if_alive

    os.register_at_fork(
        before=call(_Connections.before_fork),
        after_in_parent=call(_Connections.after_fork_in_parent),
        after_in_child=call(_Connections.after_fork_in_child),
    )
