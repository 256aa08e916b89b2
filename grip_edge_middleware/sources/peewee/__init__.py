"""peewee writes, through any of its databases, once they are committed.

What `save`, `create` and `delete_instance` write is told row by row. Of other statements the rows
are known that they find by primary key; or else the table, so that all topics of its models change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from peewee import Database, Field, Model

from grip_edge_middleware.changes import Change, Row, Watch
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.declared import check_attributes, warn_of_unknown
from grip_edge_middleware.sources.peewee.database import (
    follow,
    follow_all,
    note,
    resolve,
    writers,
)
from grip_edge_middleware.sources.peewee.saves import Saved, follow_saves, listeners
from grip_edge_middleware.sources.peewee.schema import Kind, Schema, number_key, schema, table_of
from grip_edge_middleware.sql import Write


@dataclass(frozen=True, slots=True)
class _Plan:
    """What of a model's instances is of interest."""

    watches: tuple[Watch, ...]
    strangers: tuple[Watch, ...]
    """Those of other models, which the same table keeps or relates."""
    scopes: tuple[Field, ...]
    fields: tuple[Field, ...]
    """Those of which the values count, old and new."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that fill topics' names."""
        return tuple(dict.fromkeys(name for watch in self.watches for name in watch.attributes))


class PeeweeSource:
    """Tells an observer what is written through peewee, after the commit.

    SettingsError if a watched model lacks an attribute that its topic's name needs.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._is_warned = False
        self._schema: Schema | None = None
        self._plans: dict[Kind, _Plan] = {}
        for kind in observer.watches.classes():
            if issubclass(kind, Model):
                check_attributes(observer.watches, kind)
        follow_all()
        follow_saves()
        listeners.append(self)
        writers.append(self)

    def disconnect(self) -> None:
        """Stop listening. Databases stay followed, with nothing to tell any more."""
        if self in listeners:
            listeners.remove(self)
            writers.remove(self)

    def follow(self, target: object) -> bool:
        """Follow a database from now on, rather than from its next use; False if it is none."""
        database = resolve(target)
        if database is not None:
            follow(database)
        return database is not None

    def defer(self, on_commit: object, changes: Sequence[Change]) -> bool:
        """Tell of the changes when the database's transaction in this thread is committed."""
        database = resolve(on_commit)
        if database is None:
            return False
        follow(database)
        note(database, self._observer, changes)
        return True

    def changes(self, instance: object) -> list[Change] | None:
        """Return what an update of a model's instance changes; None if it is none of peewee's."""
        if not isinstance(instance, Model):
            return None
        return list(self._changes(Saved("update", instance)))

    # --- what a save writes -----------------------------------------------------------------

    def fields_of(self, kind: Kind) -> Sequence[Field] | None:
        """Return the fields of which the values count, old and new; None if no row does."""
        plan = self._plan(kind)
        is_of_interest = plan.watches or plan.strangers or self._observer.rows is not None
        return plan.fields if is_of_interest else None

    def saved(self, database: Database, rows: Sequence[Saved]) -> None:
        """Note rows that were written."""
        if self._observer.is_suppressed or not rows:
            return
        self._warn_once()
        try:
            changes = [change for row in rows for change in self._changes(row)]
            changes += self._changes_along_with({row.write for row in rows})
        except Exception as error:
            self._observer.note_fault(f"a save of {type(rows[0].instance).__qualname__}", error)
            changes = self._changes_of_tables([row.write for row in rows])
        if changes:
            note(database, self._observer, changes)

    def note_fault(self, what: str, error: Exception) -> None:
        """Log and count a fault in reading what a save writes."""
        self._observer.note_fault(what, error)

    def _changes(self, row: Saved) -> Iterator[Change]:
        plan = self._plan(type(row.instance))
        before = {}
        if row.before is not None:
            before = {name: getattr(row.before, name) for name in plan.attributes}
        for watch in plan.watches:
            yield from watch.changes(row.operation, row.instance, before)
        for watch in plan.strangers:
            if (change := watch.change_of_all({row.operation, "update"})) is not None:
                yield change
        if self._observer.rows is not None:
            yield from self._observer.rows.changes(_row(row, plan.scopes))

    def _changes_along_with(self, writes: set[Write]) -> Iterator[Change]:
        """Yield what the database deletes, or detaches, along with rows that were deleted."""
        deleted = [write for write in writes if "delete" in write.operations]
        for write in schema().along_with(deleted, but={write.table for write in writes}):
            yield from self._changes_of_table(write)

    # --- what other statements write --------------------------------------------------------

    def wrote(
        self,
        database: Database,
        writes: Sequence[Write] | None,
        keys: Sequence[object] = (),
    ) -> None:
        """Note the writes of a statement, which tells the table, and perhaps the rows."""
        if self._observer.is_suppressed:
            return
        self._warn_once()
        try:
            if writes is None:
                changes = self._observer.everything()
            else:
                changes = self._changes_of_tables(writes, keys)
        except Exception as error:
            self._observer.note_fault("a statement", error)
            changes = self._observer.everything()
        if changes:
            note(database, self._observer, changes)

    def _changes_of_tables(
        self, writes: Sequence[Write], keys: Sequence[object] = ()
    ) -> list[Change]:
        """Return what the writes change, and what the database writes along with them.

        An UPDATE that keeps the primary keys has nothing written along.
        """
        is_update = bool(keys) and writes[0].operations == {"update"}
        along = [] if is_update else schema().along_with(writes, but=())
        changes = [change for write in writes for change in self._changes_of_table(write, keys)]
        return changes + [change for write in along for change in self._changes_of_table(write)]

    def _changes_of_table(self, write: Write, keys: Sequence[object] = ()) -> Iterator[Change]:
        known = schema()
        kinds = {kind: number_key(kind) for kind in known.kinds.get(write.table, ())}
        if keys:
            columns = known.columns.get(write.table, ())
            yield from self._observer.changes_of_keys(write, kinds, keys, columns)
        else:
            yield from self._observer.changes_of_all(write.table, kinds, write.operations)
        # Who is related is a part of what an object is.
        for kind in known.partners.get(write.table, ()):
            for watch in self._observer.watches.find(kind):
                if (change := watch.change_of_all({"update"})) is not None:
                    yield change

    # --- what is known of models ------------------------------------------------------------

    def _plan(self, kind: Kind) -> _Plan:
        if self._schema is not schema():
            # A model that comes later may be watched, or share a table with one that is.
            self._schema = schema()
            self._plans = {}
        plan = self._plans.get(kind)
        if plan is None:
            plan = self._make_plan(kind)
            if not self._observer.watches.unknown():
                self._plans[kind] = plan
        return plan

    def _make_plan(self, kind: Kind) -> _Plan:
        known, table, find = schema(), table_of(kind), self._observer.watches.find
        watches = find(kind)
        if watches:
            check_attributes(self._observer.watches, kind)
        others = chain(known.kinds.get(table, ()), known.partners.get(table, ()))
        strangers = {id(w): w for other in others for w in find(other) if w not in watches}
        scopes = tuple(f for f in kind._meta.sorted_fields if self._is_scope(table, f))
        names = [name for watch in watches for name in watch.attributes]
        return _Plan(watches, tuple(strangers.values()), scopes, _fields(kind, names, scopes))

    def _warn_once(self) -> None:
        if not self._is_warned:
            self._is_warned = True
            warn_of_unknown(self._observer.watches)

    def _is_scope(self, table: str, field: Field) -> bool:
        rows = self._observer.rows
        return rows is not None and rows.scopes.has(table, field.column_name)


def _fields(kind: Kind, attributes: Iterable[str], scopes: Sequence[Field]) -> tuple[Field, ...]:
    """Return the fields on which the attributes depend: all of them for what is computed."""
    fields = kind._meta.sorted_fields
    named = {name: f for f in fields for name in (f.name, f.column_name, f.safe_name)}
    names = list(attributes)
    if any(name not in named for name in names):
        return tuple(fields)
    return tuple(dict.fromkeys([*(named[name] for name in names), *scopes]))


def _row(saved: Saved, scopes: Sequence[Field]) -> Row:
    """Return a row with its values as statements name them."""
    meta: Any = type(saved.instance)._meta
    states = [state for state in (saved.instance, saved.before) if state is not None]
    has_key = meta.primary_key is not False and not meta.composite_key
    pks = [_in_database(meta.primary_key, saved.instance)] if has_key else []
    scoped = [(f.column_name, _in_database(f, state)) for f in scopes for state in states]
    return Row(table_of(type(saved.instance)), tuple(pks), tuple(scoped))


def _in_database(field: Any, instance: Model) -> object:
    """Return what statements have for a field's value: a hex string for a UUID, perhaps."""
    return field.db_value(instance.__data__.get(field.name))
