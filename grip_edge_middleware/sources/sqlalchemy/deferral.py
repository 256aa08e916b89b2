"""What waits for a session's commit, told of by hand.

It goes into the ledger of the session's connection. But a session gets that, or sends a savepoint,
only when it executes something, and an AsyncSession only while it is awaited: until then it waits
here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session, SessionTransaction

from grip_edge_middleware.changes import Change
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.sqlalchemy.connection import note

_KEY = "grip_edge_deferral"


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


@dataclass(slots=True)
class _Waiting:
    transaction: SessionTransaction | None
    """None if it is not begun yet."""
    observer: Observer
    changes: Sequence[Change]

    def is_within(self, outer: SessionTransaction) -> bool:
        transaction = self.transaction
        while transaction is not None and transaction is not outer:
            transaction = transaction.parent
        return transaction is outer


@dataclass(slots=True)
class Deferral:
    """What waits for the commit of one session."""

    _connections: dict[SessionTransaction, Connection] = field(default_factory=dict)
    _waiting: list[_Waiting] = field(default_factory=list)

    @classmethod
    def of(cls, session: Session) -> Deferral:
        """Return that of a session, which knows what the session has begun."""
        deferral = cls.find(session)
        if deferral is None:
            deferral = session.info[_KEY] = cls()
            transaction = _innermost(session)
            while transaction is not None:
                for connection, *_ in transaction._connections.values():
                    deferral._connections[transaction] = connection
                transaction = transaction.parent
        return deferral

    @classmethod
    def find(cls, session: Session) -> Deferral | None:
        """Return that of a session; None for the most, in which nothing waits."""
        return session.info.get(_KEY)

    def add(self, session: Session, observer: Observer, changes: Sequence[Change]) -> None:
        """Tell of the changes when the open transaction is committed, or that which begins next."""
        self._waiting.append(_Waiting(_innermost(session), observer, changes))
        self._settle()

    def begin(self, transaction: SessionTransaction, connection: Connection) -> None:
        """Take note that a transaction, or savepoint, is begun on a connection."""
        self._connections[transaction] = connection
        for waiting in self._waiting:
            waiting.transaction = waiting.transaction or transaction
        self._settle()

    def release(self, savepoint: SessionTransaction) -> None:
        """Give what waits for a savepoint to what is around it."""
        for waiting in self._waiting:
            if waiting.transaction is savepoint:
                waiting.transaction = savepoint.parent
        self._settle()

    def commit(self) -> Iterator[tuple[Observer, Sequence[Change]]]:
        """Take what waits for a transaction that was committed without having a connection."""
        waiting, self._waiting = self._waiting, []
        yield from ((w.observer, w.changes) for w in waiting)

    def roll_back(self, transaction: SessionTransaction) -> None:
        """Forget what waits for a transaction or savepoint."""
        self._waiting = [w for w in self._waiting if not w.is_within(transaction)]

    def end(self, transaction: SessionTransaction) -> None:
        """Take note that a transaction or savepoint has ended in whatever way."""
        self._connections.pop(transaction, None)
        if transaction.parent is None:
            self._waiting.clear()

    def _settle(self) -> None:
        """Give what waits to the connections that are there by now."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            connection = each.transaction and self._connections.get(each.transaction)
            if connection:
                note(connection, each.observer, each.changes)
            else:
                self._waiting.append(each)
