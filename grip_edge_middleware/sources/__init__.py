"""How a change arrives: listeners on the ORMs that tell which writes were committed.

A source hands changes to an observer once the transaction's outcome is known, and never raises into
the app: what it does not understand counts as changed. An ORM that is not installed is not listened
to.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Protocol

from grip_edge_middleware.changes import Change, Row, Rows, Watches
from grip_edge_middleware.metrics import Metrics
from grip_edge_middleware.outbox import Outbox, OutboxRow, OutboxTable
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.settings import Settings, TopicSettings
from grip_edge_middleware.sql import Write
from grip_edge_middleware.types import Operation

logger = logging.getLogger(__name__)

Sink = Callable[[Sequence[Change]], None]
"""Takes changes after their commit. Must neither raise nor block."""

Written = tuple[OutboxTable, OutboxRow]
"""A row of the outbox, and where it is."""

suppressed: ContextVar[frozenset[int]] = ContextVar("grip_edge_suppressed", default=frozenset())
"""The ids of the observers that are not told of what is written now."""


@dataclass(frozen=True, eq=False, slots=True)
class Observer:
    """One edge that wants to know what is written: the models it watches, and all rows perhaps."""

    topics: tuple[TopicSettings, ...]
    watches: Watches
    rows: Rows | None
    sink: Sink
    metrics: Metrics
    outbox: Outbox | None = None

    @classmethod
    def of(
        cls, settings: Settings, sink: Sink, metrics: Metrics, outbox: Outbox | None = None
    ) -> Observer:
        """Return the observer that the settings ask for."""
        scopes = Scopes(settings.scopes)
        rows = Rows(scopes, throttle=settings.throttle) if settings.tags_rows else None
        watches = Watches.of(settings.topics, partial(metrics.count, "source_faults"))
        return cls(settings.topics, watches, rows, sink, metrics, outbox)

    @property
    def is_idle(self) -> bool:
        """Whether no write is of interest, and no outbox to look after."""
        return not self.watches.watches and self.rows is None and self.outbox is None

    @property
    def is_suppressed(self) -> bool:
        """Whether what is written now is not to be told."""
        return id(self) in suppressed.get()

    @contextmanager
    def suppress(self) -> Iterator[None]:
        """Have nothing told of what is written in this block."""
        token = suppressed.set(suppressed.get() | {id(self)})
        try:
            yield
        finally:
            suppressed.reset(token)

    def tell(self, changes: Sequence[Change], written: Written | None = None) -> None:
        """Tell of what is committed, with the row of the outbox that says the same."""
        self.sink(once(changes))
        if self.outbox is not None and written is not None:
            self.outbox.sent(*written)

    def changes_of_all(
        self, table: str, kinds: Iterable[type], operations: Collection[Operation]
    ) -> list[Change]:
        """Return what changes when unknown rows of a table are written, which these models map."""
        watches = {id(w): w for kind in kinds for w in self.watches.find(kind)}.values()
        changes = [c for w in watches if (c := w.change_of_all(operations)) is not None]
        return changes if self.rows is None else [*changes, self.rows.change_of_all(table)]

    def changes_of_keys(
        self,
        write: Write,
        kinds: Mapping[type, str | None],
        keys: Sequence[object],
        columns: Iterable[str],
    ) -> list[Change]:
        """Return what changes when only the rows of these primary keys are written.

        `kinds` has the attribute of each model that is the key, if that is a whole number: of
        others, a database may take two for equal that are two topics. `columns` are the table's: a
        scope that a row is in is not known.
        """
        watches = {id(w): (w, kinds[k]) for k in kinds for w in self.watches.find(k)}.values()
        changes: list[Change] = []
        for watch, attribute in watches:
            changes += watch.changes_of_keys(attribute, keys, write.operations)
        if self.rows is None:
            return changes
        if self.rows.scopes.has_any(write.table, columns):
            return [*changes, self.rows.change_of_all(write.table)]
        return [*changes, *self.rows.changes(Row(write.table, tuple(keys)))]

    def everything(self) -> list[Change]:
        """Return a change of all that there is."""
        return [Change.of_site(self.topics)]

    def note_fault(self, what: str, error: Exception) -> None:
        """Log and count a fault of ours or in what the settings name: never the transaction's."""
        self.metrics.count("source_faults")
        message = "%s was not understood; all that it may change counts as changed"
        logger.error(message, what, exc_info=error)


def once(changes: Sequence[Change]) -> Sequence[Change]:
    """Return each change once: a topic may change several times in a transaction."""
    if len(changes) < 2:
        return changes
    return list({(c.topic.name, c.is_of_all, id(c.message)): c for c in changes}.values())


class Source(Protocol):
    """Listens to one ORM for one observer."""

    def follow(self, target: object) -> bool:
        """Listen to an engine or a database that would not be met; False if it is none of ours."""

    def defer(self, on_commit: object, changes: Sequence[Change]) -> bool:
        """Tell of the changes after the commit of what is open there; False if it is none of ours.

        `on_commit` is the ORM's session, connection or database. A rollback forgets them.
        """

    def changes(self, instance: object) -> list[Change] | None:
        """Return what an update of the instance changes; None if it is none of ours."""

    def disconnect(self) -> None:
        """Stop listening."""


def connect(observer: Observer) -> list[Source]:
    """Listen to every ORM that is installed and may be used."""
    return [source(observer) for name, source in _SOURCES.items() if _is_in_use(name)]


def _is_in_use(name: str) -> bool:
    if name == "django":
        # It is slow to import, and may be installed for another program.
        return name in sys.modules or "DJANGO_SETTINGS_MODULE" in os.environ
    return name in sys.modules or find_spec(name) is not None


def _sqlalchemy(observer: Observer) -> Source:
    from grip_edge_middleware.sources.sqlalchemy import SQLAlchemySource

    return SQLAlchemySource(observer)


def _django(observer: Observer) -> Source:
    from grip_edge_middleware.sources.django import DjangoSource

    return DjangoSource(observer)


def _peewee(observer: Observer) -> Source:
    from grip_edge_middleware.sources.peewee import PeeweeSource

    return PeeweeSource(observer)


_SOURCES: Mapping[str, Callable[[Observer], Source]] = {
    "django": _django,
    "peewee": _peewee,
    "sqlalchemy": _sqlalchemy,
}
