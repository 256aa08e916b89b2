"""What following a transaction comes to, whichever library makes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol, TypeVar

from grip_edge_middleware.changes import Change
from grip_edge_middleware.notes import Notes
from grip_edge_middleware.outbox import OutboxRow, OutboxTable
from grip_edge_middleware.sources import Observer, Written, once

logger = logging.getLogger(__name__)

Entry = tuple[Observer, Sequence[Change]]
"""Whom to tell of what. A ledger is shared by all edges of a process."""

C = TypeVar("C", contravariant=True)


def wrap(
    target: object,
    name: str,
    then: Callable[..., None] | None = None,
    *,
    before: Callable[..., None] | None = None,
    on_error: Callable[..., None] | None = None,
) -> None:
    """Have a method of an instance followed; what follows it is given its arguments."""
    original = getattr(target, name)

    @wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            safely(before, *args, **kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException:
            if on_error is not None:
                safely(on_error, *args, **kwargs)
            raise
        if then is not None:
            safely(then, *args, **kwargs)
        return result

    setattr(target, name, wrapped)


def safely(then: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Keep a fault of ours from the app's transaction."""
    try:
        then(*args, **kwargs)
    except Exception:
        logger.exception("a transaction could not be followed; its changes may not be published")


def tell(entries: Sequence[Entry], rows: Mapping[Observer, Written] | None = None) -> None:
    """Tell each observer what was committed, with the row that is in its outbox."""
    if len(entries) == 1 and rows is None:  # as in most transactions
        [(observer, changes)] = entries
        if changes:
            observer.tell(changes)
        return
    told: dict[Observer, list[Change]] = {}
    for observer, changes in entries:
        if changes:
            told.setdefault(observer, []).extend(changes)
    for observer, all_changes in told.items():
        observer.tell(all_changes, None if rows is None else rows.get(observer))


class Insertable(OutboxTable, Protocol[C]):
    """The outbox of a database, for who is about to commit."""

    def insert(self, connection: C, row: OutboxRow) -> None:
        """Write a row in the transaction that is open on a connection."""


def write_row(
    observer: Observer, table: Insertable[C] | None, connection: C, entries: Iterable[Entry]
) -> Written | None:
    """Write what the observer will be told into its outbox, if it has one, before the commit."""
    outbox = observer.outbox
    if outbox is None or table is None:
        return None
    changes = [change for whose, some in entries if whose is observer for change in some]
    if not changes:
        return None
    row = outbox.row(once(changes))
    try:
        table.insert(connection, row)
    except Exception as error:
        outbox.note_fault(error)
        return None
    return table, row


@contextmanager
def reading_for(notes: Notes) -> Iterator[None]:
    """Keep a fault of ours in what a statement read from the app, and its page from the cache."""
    try:
        yield
    except Exception as error:
        note_unclear(notes, error)


def note_unclear(notes: Notes, error: Exception) -> None:
    """Keep a page from the cache, for nobody knows what it read."""
    message = "what a statement reads was not understood; the page is not cached"
    logger.error(message, exc_info=error)
    notes.is_unclear = True
