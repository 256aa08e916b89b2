"""SQLAlchemy saves, from any Session or AsyncSession, once they are committed.

What changed is read from each flush. Whether it lasts is known only to the connection: a Session's
`after_commit` also fires when a savepoint is released and while an outer transaction goes on. So a
ledger on the connection follows the dialect's own commit, rollback and savepoint calls.

These methods are part of SQLAlchemy's dialect interface and are wrapped on the engine's instance;
listeners on the connection would slow down every statement.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, cast

from sqlalchemy import event, inspect, select
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import InstanceState, Mapper, Session, SessionTransaction, UOWTransaction
from sqlalchemy.orm.attributes import get_history
from sqlalchemy.orm.base import LoaderCallableStatus, PassiveFlag

from grip_edge_middleware.changes import Change, Watches
from grip_edge_middleware.errors import Mistake, SettingsError
from grip_edge_middleware.sources import Sink
from grip_edge_middleware.sources.ledger import Ledger
from grip_edge_middleware.types import Operation

logger = logging.getLogger(__name__)

_LEDGER = "grip_edge_ledger"
_OLD_VALUES = "grip_edge_old_values"
_WRAPPED = "_grip_edge_wrapped"

# Whom to tell of what. The ledger is shared by all edges of a process.
_Entry = tuple[Sink, Change]


class SQLAlchemySource:
    """Hands the changes that the saves of watched models make to `sink`, after their commit.

    SettingsError if a watched class lacks an attribute that its topic's name needs.
    """

    def __init__(self, watches: Watches, sink: Sink) -> None:
        self._watches = watches
        self._sink = sink
        self._checked: set[type] = set()
        self._is_warned = False
        for kind in watches.classes():
            if inspect(kind, raiseerr=False) is not None:
                self._check(kind)
        event.listen(Session, "after_begin", _after_begin)
        event.listen(Session, "before_flush", self._before_flush)
        event.listen(Session, "after_flush", self._after_flush)

    def disconnect(self) -> None:
        """Stop listening. Engines stay wrapped, with nothing to note any more."""
        if event.contains(Session, "after_flush", self._after_flush):
            event.remove(Session, "before_flush", self._before_flush)
            event.remove(Session, "after_flush", self._after_flush)

    def _check(self, kind: type) -> None:
        self._checked.add(kind)
        _check_attributes(kind, [n for w in self._watches.find(kind) for n in w.attributes])

    def _before_flush(self, session: Session, context: UOWTransaction, _: object) -> None:
        """Read old values that the session does not know, while the database still has them.

        An attribute that was set without being loaded has no history. Having SQLAlchemy load it on
        the set (`active_history`) would raise in a set on a detached or an async object.
        """
        self._warn_of_unknown_models()
        for instance in session.dirty:
            with _logged(instance):
                if names := self._unknown_attributes(instance):
                    _read_old_values(session, instance, names)

    def _unknown_attributes(self, instance: object) -> list[str]:
        kind = type(instance)
        watches = self._watches.find(kind)
        if watches and kind not in self._checked:
            # A class that was named by its path and is mapped only now.
            self._check(kind)
        committed = cast(InstanceState[Any], inspect(instance)).committed_state
        names = dict.fromkeys(name for watch in watches for name in watch.attributes)
        return [name for name in names if committed.get(name) is LoaderCallableStatus.NO_VALUE]

    def _after_flush(self, session: Session, context: UOWTransaction) -> None:
        """Note what the flush changed. `context` also knows the orphans, `session.deleted` not."""
        old_values = session.info.pop(_OLD_VALUES, {})
        for state, (is_delete, is_listed_only) in list(context.states.items()):
            instance = state.obj()
            if is_listed_only or instance is None or not self._watches.find(type(instance)):
                continue
            with _logged(instance):
                operation = _operation(session, state, is_delete=is_delete)
                if operation is not None:
                    before = {**self._history(instance), **old_values.get(state, {})}
                    self._note(session, state.mapper, operation, instance, before)

    def _note(
        self,
        session: Session,
        mapper: Mapper[Any],
        operation: Operation,
        instance: object,
        before: dict[str, object],
    ) -> None:
        changes = self._watches.changes(operation, instance, before)
        connection = session.connection(bind_arguments={"mapper": mapper})
        if connection._is_autocommit_isolation():
            self._sink(changes)  # visible already, whatever the session does then
        else:
            _ledger(connection).add((self._sink, change) for change in changes)

    def _history(self, instance: object) -> dict[str, object]:
        """Return the old values that the session knows."""
        old = {}
        for watch in self._watches.find(type(instance)):
            for name in watch.attributes:
                if name in inspect(type(instance)).column_attrs:
                    history = get_history(instance, name, PassiveFlag.PASSIVE_NO_INITIALIZE)
                    if history.deleted:
                        old[name] = history.deleted[0]
        return old

    def _warn_of_unknown_models(self) -> None:
        """Once, at the first flush: by then the app's modules are imported."""
        if not self._is_warned:
            self._is_warned = True
            for path in self._watches.unknown():
                logger.error(
                    'models: nothing that is imported is named "%s", so its saves are not seen; '
                    'in a script that is run directly, it is "__main__:..."',
                    path,
                )


def _operation(session: Session, state: InstanceState[Any], *, is_delete: bool) -> Operation | None:
    """Return what a flush did to an object, None for a save that changed nothing."""
    if is_delete:
        return "delete"
    if state.key is None:
        return "insert"
    # A value that is an SQL expression leaves no history: the flush expires the attribute.
    if session.is_modified(cast(object, state.obj())) or state.expired_attributes:
        return "update"
    return None


def _read_old_values(session: Session, instance: object, names: list[str]) -> None:
    state = cast(InstanceState[Any], inspect(instance))
    if state.key is None:
        return
    mapper = state.mapper
    columns = [getattr(mapper.class_, name) for name in names]
    is_it = [
        column == value for column, value in zip(mapper.primary_key, state.key[1], strict=True)
    ]
    bind = {"mapper": mapper}
    row = session.connection(bind_arguments=bind).execute(select(*columns).where(*is_it)).first()
    if row is not None:
        old_values = session.info.setdefault(_OLD_VALUES, {})
        old_values[state] = dict(zip(names, row, strict=True))


@contextmanager
def _logged(instance: object) -> Iterator[None]:
    """Keep a fault with one object from the transaction, and from the other objects."""
    try:
        yield
    except Exception:
        name = type(instance).__qualname__
        logger.exception("a save of %s was not understood; its topics are not published", name)


def _check_attributes(kind: type, names: Iterable[str]) -> None:
    mistakes = [
        Mistake(
            "models",
            f"{kind.__qualname__} has no attribute {name!r} to fill the topic's name",
            'map it: {"model": ..., "params": {"' + name + '": "its attribute"}}',
        )
        for name in dict.fromkeys(names)
        if not hasattr(kind, name)
    ]
    if mistakes:
        raise SettingsError(mistakes)


def _after_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    _follow(connection.dialect)


def _ledger(connection: Connection) -> Ledger[_Entry]:
    ledger: Ledger[_Entry] = connection.info.setdefault(_LEDGER, Ledger())
    return ledger


def _follow(dialect: Dialect) -> None:
    """Have the dialect's transaction calls keep the ledgers of its connections."""
    if getattr(dialect, _WRAPPED, False):
        return
    setattr(dialect, _WRAPPED, True)
    # A COMMIT that fails may have been made all the same, so it counts as made: a purge too many
    # is harmless, one too few is not.
    _wrap(dialect, "do_commit", _submit, on_error=_submit)
    _wrap(dialect, "do_commit_twophase", _submit, on_error=_submit)
    _wrap(dialect, "do_rollback", _forget, on_error=_forget)
    _wrap(dialect, "do_rollback_twophase", _forget, on_error=_forget)
    _wrap(dialect, "do_savepoint", lambda c, name: _ledger(c).savepoint(name))
    _wrap(dialect, "do_rollback_to_savepoint", lambda c, name: _ledger(c).rollback_to(name))
    _wrap(dialect, "do_release_savepoint", lambda c, name: _ledger(c).release(name))


def _wrap(
    dialect: Dialect,
    name: str,
    then: Callable[..., None],
    *,
    on_error: Callable[..., None] | None = None,
) -> None:
    original = getattr(dialect, name)

    @wraps(original)
    def wrapped(connection: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = original(connection, *args, **kwargs)
        except BaseException:
            if on_error is not None:
                _safely(on_error, connection, *args)
            raise
        _safely(then, connection, *args)
        return result

    setattr(dialect, name, wrapped)


def _safely(then: Callable[..., None], connection: Any, *args: Any) -> None:
    try:
        then(connection, *args)
    except Exception:
        logger.exception("a transaction could not be followed; its changes may not be published")


def _submit(connection: Any, *_: Any) -> None:
    entries = _take(connection)
    # By identity: a sink is any callable, hashable or not.
    for sink in {id(sink): sink for sink, _ in entries}.values():
        sink([change for whose, change in entries if whose is sink])


def _forget(connection: Any, *_: Any) -> None:
    _take(connection)


def _take(connection: Any) -> list[_Entry]:
    ledger: Ledger[_Entry] | None = connection.info.get(_LEDGER)
    return [] if ledger is None else ledger.take()
