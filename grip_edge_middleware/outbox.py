"""What was committed is delivered, even if this process is killed right after the commit.

A transaction that changes topics writes one row more: into the outbox, a table of the same
database. It is deleted when every target has what it says. A row that outlives its process is taken
by another one when it is due: every process looks, and takes rows by moving their due time. So
changes are delivered at least once.

The transaction itself is the source's, and so is all SQL; this is what goes on around it.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol
from uuid import uuid4

from grip_edge_middleware.changes import Change, Rows
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.metrics import Metrics
from grip_edge_middleware.process import attach_to_process
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.settings import TopicSettings
from grip_edge_middleware.stores.codec import decode_message, encode_message
from grip_edge_middleware.topics import Topic

logger = logging.getLogger(__name__)

TABLE = "grip_edge_outbox"
"""Columns: `id`, 32 characters; `edge`, 64, whose it is; `due`, milliseconds of Unix time;
`changes`, JSON."""

# Rows that are taken or deleted by one statement.
BATCH_SIZE = 500
# Rows on their way in one process. Of more, another look is taken when they are due.
MAX_ROWS = 10_000
# Between the deletions of what was delivered: often enough that the table stays small.
TURN_S = 0.5
# What is left then is left in the table.
CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One transaction's changes. `due` is when it may be taken from who has it, in Unix ms."""

    id: str
    due: int
    changes: str


class OutboxTable(Protocol):
    """The outbox of one database. Called from the outbox's thread only."""

    def take(self, now: int, until: int, limit: int) -> list[OutboxRow]:
        """Take rows that are due and make them due at `until`, so that nobody else gets them."""

    def keep(self, ids: Sequence[str], until: int) -> None:
        """Put off when the rows are due."""

    def delete(self, ids: Sequence[str]) -> None:
        """Delete rows. Some may be gone, or not be there yet."""

    def close(self) -> None:
        """Close the connection, if there is one."""

    def after_fork(self) -> None:
        """Leave the connection to the parent."""


@dataclass(slots=True)
class _Sent:
    """A row that this process delivers: with the change of that number it is."""

    table: OutboxTable
    id: str
    sequence: int
    due: int


class Outbox:
    """Writes rows for transactions, deletes those that were delivered, and takes what was left.

    `submit` takes changes, `submitted` and `delivered` return the number of the last change, and of
    the last up to which all are delivered. `finish` delivers what is pending, at the end. A row is
    left to its process for `grace_s`. `name` tells apart edges with different settings that share a
    database. `clock` gives Unix seconds: those of several machines should agree to within that.
    """

    _sent: list[_Sent]
    _look_at: int
    _is_closing: bool
    _is_over: threading.Event

    def __init__(
        self,
        topics: Sequence[TopicSettings],
        *,
        submit: Callable[[Sequence[Change]], None],
        submitted: Callable[[], int],
        delivered: Callable[[], int],
        finish: Callable[[], None],
        metrics: Metrics,
        throttle_s: float,
        grace_s: float,
        name: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._topics = topics
        self._rows = Rows(Scopes(), throttle=throttle_s)
        self._submit = submit
        self._submitted = submitted
        self._delivered = delivered
        self._finish = finish
        self._metrics = metrics
        self._grace_ms = int(grace_s * 1000)
        self._clock = clock
        self._tables: list[OutboxTable] = []
        self._failing: set[int] = set()
        self._is_faulty = False
        self._start_anew()
        attach_to_process(self)

    # --- around a transaction ---------------------------------------------------------------

    def row(self, changes: Iterable[Change]) -> OutboxRow:
        """Return the row to write before the transaction is committed."""
        return OutboxRow(uuid4().hex, self._due(), encode(changes))

    def sent(self, table: OutboxTable, row: OutboxRow) -> None:
        """Note that a row is committed, and its changes submitted."""
        self._is_faulty = False
        if self._is_closing:
            return  # they may have come too late to be delivered: the row is left to others
        with self._lock:
            if len(self._sent) < MAX_ROWS:
                self._sent.append(_Sent(table, row.id, self._submitted(), row.due))
        self._wake_up()

    def add_table(self, table: OutboxTable) -> None:
        """Look after the outbox of a database from now on."""
        with self._lock:
            self._tables.append(table)
        self._wake_up()

    def note_fault(self, error: Exception) -> None:
        """Count that a row could not be written, and log the first: the transaction goes on."""
        self._metrics.count("outbox_faults")
        if self._is_faulty:
            return
        self._is_faulty = True
        logger.error(
            "no row could be written into %s, so what was committed is lost if this process is "
            "killed now: %s; was the table created?",
            TABLE,
            error,
        )

    # --- the thread -------------------------------------------------------------------------

    def turn(self) -> float:
        """Delete what was delivered, keep what is on its way, take what was left by others.

        Return after how many seconds there may be more of these.
        """
        now = self._now()
        self._delete_delivered()
        self._keep_undelivered(now)
        if now >= self._look_at:
            # Not all processes at once.
            self._look_at = now + int(self._grace_ms * random.uniform(0.5, 1.0))  # noqa: S311
            for table in list(self._tables):
                self._take_from(table, now)
        return (self._look_at - now) / 1000

    def _delete_delivered(self) -> None:
        delivered = self._delivered()
        with self._lock:
            done = [sent for sent in self._sent if sent.sequence <= delivered]
            self._sent = [sent for sent in self._sent if sent.sequence > delivered]
        for table, rows in _by_table(done):
            with self._asking(table):
                table.delete([sent.id for sent in rows])

    def _keep_undelivered(self, now: int) -> None:
        soon = now + self._grace_ms // 2
        late = [sent for sent in self._sent if sent.due < soon]
        until = self._due()
        for table, rows in _by_table(late):
            with self._asking(table):
                table.keep([sent.id for sent in rows], until)
                for sent in rows:
                    sent.due = until

    def _take_from(self, table: OutboxTable, now: int) -> None:
        while len(self._sent) < MAX_ROWS and not self._is_closing:
            taken: list[OutboxRow] = []
            with self._asking(table):
                taken = table.take(now, self._due(), BATCH_SIZE)
            for row in taken:
                self._submit(self._read(row))
                self.sent(table, row)
                self._metrics.count("outbox_taken")
            if len(taken) < BATCH_SIZE:
                return

    def _read(self, row: OutboxRow) -> list[Change]:
        try:
            return decode(row.changes, self._topics, self._rows)
        except Exception:
            logger.exception("row %s of %s cannot be read; all counts as changed", row.id, TABLE)
            return [Change.of_site(self._topics)]

    @contextmanager
    def _asking(self, table: OutboxTable) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._metrics.count("outbox_faults")
            if id(table) not in self._failing:
                self._failing.add(id(table))
                logger.warning(
                    "%s does not answer: %s; trying again",
                    TABLE,
                    error,
                    extra=log_fields(target=TABLE, reason=str(error)),
                )
        else:
            self._failing.discard(id(table))

    def _due(self) -> int:
        return self._now() + self._grace_ms

    def _now(self) -> int:
        return int(self._clock() * 1000)

    # --- its life ---------------------------------------------------------------------------

    def close(self) -> None:
        """Deliver what is pending, delete what was delivered, and end the thread."""
        if self._is_closing:
            return
        self._is_closing = True
        self._finish()
        self._is_over.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

    def after_fork(self) -> None:
        """Start anew in a child: what is on its way is the parent's."""
        for table in self._tables:
            table.after_fork()
        self._start_anew()

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_closing = False
        self._is_over = threading.Event()
        self._sent = []
        self._look_at = 0
        self._thread: threading.Thread | None = None

    def _wake_up(self) -> None:
        if self._is_closing:
            return
        self._wake.set()
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._run, name="grip-edge-outbox", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is shutting down: another process takes it
                self._thread = None

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                wait_s = self.turn()
            except Exception:
                # A fault of ours must not end the thread.
                logger.exception("a turn of the outbox failed; it goes on")
                wait_s = TURN_S
            if self._sent:
                self._is_over.wait(TURN_S)
            else:
                self._wake.wait(wait_s)
                self._wake.clear()
        self._delete_delivered()
        for table in self._tables:
            with self._asking(table):
                table.close()


def _by_table(rows: list[_Sent]) -> Iterator[tuple[OutboxTable, list[_Sent]]]:
    def table_of(sent: _Sent) -> int:
        return id(sent.table)

    for _, group in groupby(sorted(rows, key=table_of), table_of):
        same = list(group)
        for start in range(0, len(same), BATCH_SIZE):
            yield same[0].table, same[start : start + BATCH_SIZE]


def encode(changes: Iterable[Change]) -> str:
    """Return the changes as JSON."""
    return json.dumps([_encode(change) for change in changes], separators=(",", ":"))


def _encode(change: Change) -> dict[str, Any]:
    topic = change.topic
    encoded: dict[str, Any] = {"topic": topic.name, "of": topic.template}
    if topic.params:
        encoded["params"] = topic.params
    if change.is_of_all:
        encoded["all"] = True
    if change.message is not None:
        encoded["message"] = encode_message(change.message)
    return encoded


def decode(text: str, topics: Sequence[TopicSettings], rows: Rows) -> list[Change]:
    """Return the changes that were encoded.

    What the settings do not have any more counts as a change of everything.
    """
    by_template = {settings.template.text: settings for settings in topics}
    return [
        _decode(encoded, by_template, rows) or Change.of_site(topics)
        for encoded in json.loads(text)
    ]


def _decode(
    encoded: Mapping[str, Any], by_template: Mapping[str, TopicSettings], rows: Rows
) -> Change | None:
    settings = by_template.get(encoded["of"]) or rows.settings_of(encoded["topic"])
    if settings is None:
        return None
    params = tuple((name, value) for name, value in encoded.get("params", ()))
    message = decode_message(encoded["message"]) if "message" in encoded else None
    topic = Topic(encoded["topic"], settings.template.text, params)
    return Change(topic, settings, message, is_of_all=encoded.get("all", False))
