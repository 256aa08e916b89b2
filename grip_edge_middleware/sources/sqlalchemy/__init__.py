"""SQLAlchemy writes, by any Session, AsyncSession or Connection, once they are committed.

What a flush changes is read from its objects, and told row by row. Of other statements the rows are
known that they find by primary key; or else the table, so that all topics of its models change.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, Table, event, inspect
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.orm import (
    InstanceState,
    Mapper,
    Session,
    SessionTransaction,
    SessionTransactionOrigin,
    UOWTransaction,
    object_session,
)

from grip_edge_middleware.changes import Change, Watch
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.declared import check_attributes, warn_of_unknown
from grip_edge_middleware.sources.sqlalchemy import flush
from grip_edge_middleware.sources.sqlalchemy.connection import (
    entries,
    follow,
    note,
    note_row,
    preparers,
    writers,
)
from grip_edge_middleware.sources.sqlalchemy.deferral import Deferral
from grip_edge_middleware.sources.sqlalchemy.effects import Effect, Keys
from grip_edge_middleware.sources.sqlalchemy.flush import (
    Current,
    Flush,
    Kept,
    Past,
    Saved,
    Values,
    flushing,
)
from grip_edge_middleware.sources.sqlalchemy.outbox import (
    SQLAlchemyOutbox,
    create_outbox,
    is_in_memory,
)
from grip_edge_middleware.sources.sqlalchemy.schema import known, number_key, tables_of
from grip_edge_middleware.sources.transactions import write_row
from grip_edge_middleware.sql import Write
from grip_edge_middleware.types import Operation

__all__ = ["SQLAlchemySource", "create_outbox"]

logger = logging.getLogger(__name__)

# An attribute of sessions, since making their `info` takes a microsecond.
_FLUSH = "_grip_edge_flush"
# Statements differ in what they write far less than in their text.
_MOST_KEPT = 1000


@dataclass(frozen=True, slots=True)
class _Plan:
    """What of a class's objects is of interest."""

    watches: tuple[Watch, ...]
    kept: tuple[Kept, ...]
    attributes: tuple[str, ...]
    """Those of columns, whose old values count as well."""
    expressions: tuple[str, ...]
    """Those of SQL expressions, which only the database can compute."""
    computed: tuple[str, ...]
    """Those that Python computes from others."""
    related: tuple[str, ...]
    """To which single objects it is related, from which something may be computed."""
    partners: tuple[str, ...]
    followed_by_session: frozenset[str]


class SQLAlchemySource:
    """Tells an observer what is written through SQLAlchemy, after the commit.

    SettingsError if a watched class lacks an attribute that its topic's name needs.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._plans: dict[type, _Plan | None] = {}
        self._kinds: dict[str, Mapping[type, str | None]] = {}
        self._changes_of_tables: dict[tuple[int, Sequence[Write]], list[Change]] = {}
        self._is_warned = False
        for kind in observer.watches.classes():
            if inspect(kind, raiseerr=False) is not None:
                check_attributes(self._observer.watches, kind)
        self._outboxes: WeakKeyDictionary[Dialect, SQLAlchemyOutbox] = WeakKeyDictionary()
        _listen()
        if observer.outbox is not None:
            event.listen(Session, "after_begin", self._after_begin)
            preparers.append(self)
        event.listen(Mapper, "after_mapper_constructed", self._forget_plans)
        writers.append(self)

    def disconnect(self) -> None:
        """Stop listening. Engines stay followed, with nothing to tell any more."""
        if self in writers:
            writers.remove(self)
            if self._observer.outbox is not None:
                event.remove(Session, "after_begin", self._after_begin)
                preparers.remove(self)
            event.remove(Mapper, "after_mapper_constructed", self._forget_plans)

    def follow(self, target: object) -> bool:
        """Follow an engine of which no session may be seen; False if it is none."""
        target = getattr(target, "sync_engine", target)
        if not isinstance(target, Engine):
            return False
        follow(target.dialect)
        self._look_after(target)
        return True

    def defer(self, on_commit: object, changes: Sequence[Change]) -> bool:
        """Tell of the changes when a session's or connection's transaction is committed."""
        match _sync(on_commit):
            case Session() as session:
                _listen_for_deferrals()
                Deferral.of(session).add(session, self._observer, changes)
            case Connection() as connection:
                self._defer_on_connection(connection, changes)
            case _:
                return False
        return True

    def _defer_on_connection(self, connection: Connection, changes: Sequence[Change]) -> None:
        follow(connection.dialect)
        self._look_after(connection.engine)
        if connection.in_transaction():
            note(connection, self._observer, changes)
        else:
            self._observer.tell(changes)

    def changes(self, instance: object) -> list[Change] | None:
        """Return what an update of a mapped instance changes; None if it is not mapped."""
        if _mapper(type(instance)) is None:
            return None
        plan, state, session = (
            self._plan(type(instance)),
            _state(instance),
            object_session(instance),
        )
        if plan is None:
            return []
        dialect = DefaultDialect() if session is None else session.get_bind(state.mapper).dialect
        changes = self._observer.watches.changes("update", instance, {})
        return [*changes, *self._changes_of_rows(plan, Current(instance, state.dict), {}, dialect)]

    # --- what a flush writes ----------------------------------------------------------------

    def will_save(self, state: InstanceState[Any], saved: Saved) -> None:
        """Note old values that the flush will forget, while the database still has the others."""
        try:
            plan = self._plan(state.class_)
            if plan is not None:
                self._look_back(plan, state, saved)
        except Exception as error:
            saved.fault = error

    def _look_back(self, plan: _Plan, state: InstanceState[Any], saved: Saved) -> None:
        before = saved.before = flush.known_before(state, plan.attributes)
        unknown = flush.unknown_before(state, plan.attributes)
        if saved.operation == "delete":
            unknown += [name for name in plan.attributes if name not in state.dict]
        before.update((n, state.dict[n]) for n in plan.expressions if n in state.dict)
        unknown += [name for name in plan.expressions if name not in state.dict]
        if missing := [name for name in dict.fromkeys(unknown) if name not in before]:
            before.update(flush.read(saved.connection, state, missing))

    def flushed(self, under_way: Flush) -> None:
        """Note what a flush has changed."""
        if not self._is_warned:
            self._warn_of_unknown_models()
        if self._observer.is_suppressed:
            return
        changes: dict[Connection, list[Change]] = {}
        for state, saved in under_way.saved.items():
            if saved.operation == "update" and not flush.is_changed(under_way.session, state):
                continue
            changes.setdefault(saved.connection, []).extend(self._changes_of_save(state, saved))
        for connection, of_rows in changes.items():
            note(connection, self._observer, of_rows)
        if under_way.related:
            self._note_relations(under_way)

    def _changes_of_save(self, state: InstanceState[Any], saved: Saved) -> list[Change]:
        try:
            if saved.fault is not None:
                raise saved.fault
            plan = self._plan(state.class_)
            return [] if plan is None else self._changes(plan, state, saved)
        except Exception as error:
            self._observer.note_fault(f"a save of {state.class_.__qualname__}", error)
            return self._changes_of_all(state.mapper, saved.operation)

    def _note_relations(self, under_way: Flush) -> None:
        """Note who was related by a statement of a hook's, of which no object tells."""
        relations = under_way.relations()
        for connection, write in under_way.related:
            if write.table not in relations:
                note(connection, self._observer, self._changes_of_table(write))

    def _changes(self, plan: _Plan, state: InstanceState[Any], saved: Saved) -> list[Change]:
        instance, operation, is_delete = state.obj(), saved.operation, saved.operation == "delete"
        before: dict[str, Any] = {}
        changes: list[Change] = []
        # Before anything of it is loaded.
        writes_row = self._observer.rows is not None and (is_delete or flush.writes_row(state))
        if operation != "insert":
            before = {**flush.known_before(state, plan.attributes), **(saved.before or {})}
            unknown = set(flush.unknown_before(state, plan.attributes)) - set(before)
            if unknown and operation == "update":  # a hook has set it since `will_save`
                changes += self._changes_of_all(state.mapper, operation)
        now: Values = {}
        if plan.expressions and not is_delete:
            now = flush.read(saved.connection, state, list(plan.expressions))
        if plan.computed and operation != "insert":
            past = Past(instance, {**flush.related_before(instance, plan.related), **before})
            before.update((name, getattr(past, name)) for name in plan.computed)
        for watch in plan.watches:
            changes += watch.changes(operation, instance, before, now)
        if writes_row:
            known = state.dict
            values = {**known, **before} if is_delete else Current(instance, known)
            changes += self._changes_of_rows(plan, values, before, saved.connection.dialect)
        if plan.partners:
            for partner in flush.partners_of(instance, plan.partners, is_delete=is_delete):
                changes += self._observer.watches.changes("update", partner, {})
        if operation != "insert":
            changes += self._along_with(plan, operation, before)
        return changes

    def _changes_of_rows(
        self, plan: _Plan, now: Values | Current, before: Values, dialect: Dialect
    ) -> list[Change]:
        rows = self._observer.rows
        if rows is None:
            return []
        return [c for kept in plan.kept for c in rows.changes(kept.row(now, before, dialect))]

    def _along_with(self, plan: _Plan, operation: Operation, before: Values) -> Iterator[Change]:
        """Yield what the database changes with an object, which the session does not see."""
        is_moved = any(kept.primary_key and kept.primary_key[0] in before for kept in plan.kept)
        if operation != "delete" and not is_moved:
            return
        writes = [Write(kept.table, frozenset({operation})) for kept in plan.kept]
        for write in known.along_with(writes, but=plan.followed_by_session):
            yield from self._changes_of_table(write)

    def _changes_of_all(self, mapper: Mapper[Any], operation: Operation) -> list[Change]:
        """Take all objects of a class for changed."""
        tables = [table.name.lower() for table in mapper.tables if isinstance(table, Table)]
        writes = [Write(table, frozenset({"insert", "update", operation})) for table in tables]
        return [change for write in writes for change in self._changes_of_table(write)]

    # --- what goes into the outbox ----------------------------------------------------------

    def _after_begin(
        self, session: Session, transaction: SessionTransaction, connection: Connection
    ) -> None:
        self._look_after(connection.engine)

    def _look_after(self, engine: Engine) -> None:
        outbox = self._observer.outbox
        if outbox is None or engine.dialect in self._outboxes or is_in_memory(engine):
            return
        table = self._outboxes[engine.dialect] = SQLAlchemyOutbox(engine, outbox.name)
        outbox.add_table(table)

    def before_commit(self, dialect: Dialect, connection: Any) -> None:
        """Write into the outbox what the transaction changes."""
        table = self._outboxes.get(dialect)
        written = write_row(self._observer, table, connection, entries(connection))
        if written is not None:
            note_row(connection, self._observer, written)

    # --- what other statements write --------------------------------------------------------

    @property
    def observer(self) -> Observer:
        """Who is told in the end."""
        return self._observer

    def changes_of(self, effect: Effect, keys: Keys) -> list[Change]:
        """Return what a statement changes, by its table or by the rows. Never raises."""
        try:
            if effect.metadata is not None:
                known.learn(effect.metadata)
            if effect.writes is None:
                return self._observer.everything()
            if keys and effect.is_by_key:
                return self._changes_of_keys(effect.writes[0], keys)
            return self._of(effect.writes)
        except Exception as error:
            self._observer.note_fault("a statement", error)
            return self._observer.everything()

    def _of(self, writes: Sequence[Write]) -> list[Change]:
        if flushing.get() is not None:
            return self._changes_of_writes(writes)
        key = known.version, tuple(writes)
        changes = self._changes_of_tables.get(key)
        if changes is None:
            known.learn_mapped()  # a text names no metadata
            changes = self._changes_of_writes(writes)
            if len(self._changes_of_tables) < _MOST_KEPT and not self._observer.watches.unknown():
                self._changes_of_tables[known.version, tuple(writes)] = changes
        return changes

    def _changes_of_writes(self, writes: Sequence[Write]) -> list[Change]:
        everywhere = chain(writes, known.along_with(writes))
        return [change for write in everywhere for change in self._changes_of_table(write)]

    def _changes_of_keys(self, write: Write, keys: Sequence[object]) -> list[Change]:
        changes = self._observer.changes_of_keys(
            write, self._kinds_of(write.table), keys, known.columns[write.table]
        )
        if "delete" in write.operations:
            for child in known.along_with([write]):
                changes += self._changes_of_table(child)
        return changes

    def _changes_of_table(self, write: Write) -> list[Change]:
        # Whom a many-to-many relationship relates is told when the flush has ended.
        under_way = flushing.get()
        is_told_later = under_way is not None and under_way.relates(write.table)
        kinds = () if is_told_later else self._kinds_of(write.table)
        return self._observer.changes_of_all(write.table, kinds, write.operations)

    def _kinds_of(self, table: str) -> Mapping[type, str | None]:
        """Return the watched classes whose objects a table keeps, or relates.

        With the attribute that is its primary key, if that is a whole number.
        """
        kinds = self._kinds.get(table)
        if kinds is None:
            classes = [c for c in self._observer.watches.classes() if _mapper(c) is not None]
            mappers: dict[type, Mapper[Any]] = {kind: inspect(kind) for kind in classes}
            kinds = {k: number_key(m, table) for k, m in mappers.items() if table in tables_of(m)}
            if not self._observer.watches.unknown():
                self._kinds[table] = kinds
        return kinds

    # --- what is known of classes -----------------------------------------------------------

    def _plan(self, kind: type) -> _Plan | None:
        try:
            return self._plans[kind]
        except KeyError:
            plan = self._make_plan(kind)
            if plan is not None or not self._observer.watches.unknown():
                self._plans[kind] = plan
            return plan

    def _make_plan(self, kind: type) -> _Plan | None:
        mapper: Mapper[Any] = inspect(kind)
        watches = self._observer.watches.find(kind)
        partners = tuple(
            name
            for name in flush.partners(mapper)
            if self._observer.watches.find(mapper.relationships[name].mapper.class_)
        )
        if not watches and not partners and self._observer.rows is None:
            return None
        if watches:
            check_attributes(self._observer.watches, kind)
        for table in mapper.tables:
            if isinstance(table, Table):
                known.learn(table.metadata)
        scopes = Scopes() if self._observer.rows is None else self._observer.rows.scopes
        kept = tuple(flush.kept_in(mapper, scopes))
        named = list(dict.fromkeys(name for watch in watches for name in watch.attributes))
        expressions = tuple(name for name in named if flush.is_expression(mapper, name))
        computed = tuple(name for name in named if flush.is_computed(mapper, name))
        # Whatever a property is computed from.
        columns = (
            flush.columns(mapper) if computed else [n for n in named if n in mapper.column_attrs]
        )
        keys = [name for each in kept for name in each.attributes]
        attributes = [name for name in (*columns, *keys) if name not in expressions]
        return _Plan(
            watches,
            kept,
            tuple(dict.fromkeys(attributes)),
            expressions,
            computed,
            flush.many_to_one(mapper) if computed else (),
            partners,
            flush.followed_by_session(mapper),
        )

    def _forget_plans(self, mapper: Mapper[Any], kind: type) -> None:
        """A class that comes later may be watched, or extend one that is."""
        self._plans.clear()
        self._kinds.clear()
        self._changes_of_tables.clear()

    def _warn_of_unknown_models(self) -> None:
        """Once, at the first flush: by then the app's modules are imported."""
        self._is_warned = True
        warn_of_unknown(self._observer.watches)


def _state(instance: object) -> InstanceState[Any]:
    return cast(InstanceState[Any], inspect(instance))


def _mapper(kind: type) -> Mapper[Any] | None:
    return cast(Mapper[Any] | None, inspect(kind, raiseerr=False))


def _sync(target: Any) -> object:
    """Return the session or connection that does the work, of one that is scoped or awaited.

    The classes of SQLAlchemy's asyncio are not imported: from 2.1 on that takes greenlet, which an
    app that awaits nothing need not have.
    """
    if hasattr(target, "session_factory"):
        target = target()
    return getattr(target, "sync_session", getattr(target, "sync_connection", target))


@cache
def _listen() -> None:
    """Listen to all sessions, once for all sources."""
    event.listen(Session, "after_begin", _after_begin)
    event.listen(Session, "before_flush", _before_flush)
    event.listen(Session, "after_transaction_create", _after_transaction_create)
    event.listen(Session, "after_transaction_end", _after_transaction_end)
    # First, so that what the app's listeners write then is none of the flush's.
    event.listen(Session, "after_flush", _after_flush, insert=True)
    # `retval`, of which nothing is made here, spares each row a wrapper.
    event.listen(Mapper, "before_insert", _before_insert, raw=True, retval=True)
    event.listen(Mapper, "before_update", _before_update, raw=True, retval=True)
    event.listen(Mapper, "before_delete", _before_delete, raw=True, retval=True)


@cache
def _listen_for_deferrals() -> None:
    """Listen to what they wait for, once there is one: each commit of the app pays for this."""
    event.listen(Session, "after_begin", _begin_deferred)
    event.listen(Session, "after_commit", _commit_deferred)
    event.listen(Session, "after_soft_rollback", _roll_back_deferred)
    event.listen(Session, "after_transaction_end", _end_deferred)


def _before_flush(session: Session, context: UOWTransaction, _: object) -> None:
    if writers:
        vars(session)[_FLUSH] = context


def _after_transaction_create(session: Session, transaction: SessionTransaction) -> None:
    """Begin to follow a flush. It has a transaction of its own, if it has anything to write."""
    if transaction.origin is not SessionTransactionOrigin.SUBTRANSACTION:
        return
    context: UOWTransaction | None = vars(session).get(_FLUSH)
    # The app's listeners, too, may begin one before the flush knows what it has to write.
    if context is not None and context.mappers:
        del vars(session)[_FLUSH]
        flushing.set(Flush(session, context, transaction, outer=flushing.get()))


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    under_way = flushing.get()
    if under_way is not None and under_way.transaction is transaction:
        flushing.set(under_way.outer)  # it failed


def _will_save(operation: Operation, connection: Connection, state: InstanceState[Any]) -> None:
    under_way = flushing.get()
    if under_way is not None:
        saved = under_way.saved[state] = Saved(operation, connection)
        for writer in writers:
            writer.will_save(state, saved)


def _before_insert(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    under_way = flushing.get()
    if under_way is not None:  # there is nothing to look at before
        under_way.saved[state] = Saved("insert", connection)
        if (replaced := under_way.replaced(mapper, state)) is not None:
            _will_save("delete", connection, replaced)


def _before_update(mapper: object, connection: Connection, state: InstanceState[Any]) -> None:
    _will_save("update", connection, state)


def _before_delete(mapper: object, connection: Connection, state: InstanceState[Any]) -> None:
    _will_save("delete", connection, state)


def _after_flush(session: Session, context: UOWTransaction) -> None:
    under_way = flushing.get()
    if under_way is not None and under_way.context is context:
        flushing.set(under_way.outer)
        for writer in writers:
            writer.flushed(under_way)


def _after_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    follow(connection.dialect)


# --- what waits for a session's commit ----------------------------------------------------------


def _begin_deferred(
    session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    if (deferral := Deferral.find(session)) is not None:
        deferral.begin(transaction, connection)


def _commit_deferred(session: Session) -> None:
    if (deferral := Deferral.find(session)) is None:
        return
    savepoint = session.get_nested_transaction()
    if savepoint is not None:
        deferral.release(savepoint)
        return
    for observer, changes in deferral.commit():
        observer.tell(changes)


def _roll_back_deferred(session: Session, previous: SessionTransaction) -> None:
    if (deferral := Deferral.find(session)) is not None:
        deferral.roll_back(previous)


def _end_deferred(session: Session, transaction: SessionTransaction) -> None:
    if (deferral := Deferral.find(session)) is not None:
        deferral.end(transaction)
