"""What a flush changes: the identities of its objects, before and after.

It loads what an object does not know of itself, and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from types import FunctionType, MethodType
from typing import Any

from sqlalchemy import Column, Table, select
from sqlalchemy.engine import Connection, Dialect
from sqlalchemy.orm import (
    InstanceState,
    Mapper,
    RelationshipDirection,
    Session,
    SessionTransaction,
    UOWTransaction,
)
from sqlalchemy.orm.attributes import get_history, instance_state
from sqlalchemy.orm.base import LoaderCallableStatus, PassiveFlag
from sqlalchemy.types import TypeEngine

from grip_edge_middleware.changes import Row
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.sql import Write
from grip_edge_middleware.types import Operation

_UNKNOWN = LoaderCallableStatus.NO_VALUE
_IS_DELETE = itemgetter(0)

Values = Mapping[str, Any]
Attribute = tuple[str, TypeEngine[Any]]
"""The name of an attribute that maps a column, and the column's type."""


@dataclass(slots=True)
class Saved:
    """What a flush does to one object."""

    operation: Operation
    connection: Connection
    before: dict[str, Any] | None = None
    """What the database had, as far as the session did not know it."""
    fault: Exception | None = None
    """Why that could not be found out."""


@dataclass(eq=False, slots=True)
class Flush:
    """A flush that is under way: what it changes is read from its objects."""

    session: Session
    context: UOWTransaction
    transaction: SessionTransaction
    outer: Flush | None
    """That in which a hook flushes another session."""
    saved: dict[InstanceState[Any], Saved] = field(default_factory=dict)
    related: list[tuple[Connection, Write]] = field(default_factory=list)
    """Writes to tables of many-to-many relationships, which have no object."""
    told: set[Any] = field(default_factory=set)
    """The compiled statements of which the objects tell all that there is."""
    _deletes: bool | None = None
    """Whether it was asked to delete something."""

    def replaced(self, mapper: Mapper[Any], new: InstanceState[Any]) -> InstanceState[Any] | None:
        """Return the deleted object whose primary key a new one has.

        There is no DELETE then: the row is updated, and nobody is told of the one that was there.
        """
        if self._deletes is None:  # all is known before anything is written
            self._deletes = any(map(_IS_DELETE, self.context.states.values()))
        if not self._deletes:
            return None
        key = mapper.identity_key_from_instance(new.obj())
        known = self.session.identity_map.get(key)
        old: InstanceState[Any] | None = None if known is None else instance_state(known)
        is_deleted = old is not None and old in self.context.states and self.context.states[old][0]
        return old if is_deleted else None

    def saves(self, table: str) -> bool:
        """Whether objects of this flush are kept in a table."""
        return table in chain.from_iterable(map(_tables_of, self.context.mappers))

    def relates(self, table: str) -> bool:
        """Whether objects of this flush may be related by a table."""
        return any(
            table == r.secondary.name.lower() for m in self.context.mappers for r in _many(m)
        )

    def relations(self) -> set[str]:
        """Return the tables by which objects were related, or no longer are."""
        return {
            relationship.secondary.name.lower()
            for mapper, states in self.context.mappers.items()
            for relationship in _many(mapper)
            if any(self._is_related_anew(state, relationship.key) for state in states)
        }

    def _is_related_anew(self, state: InstanceState[Any], relationship: str) -> bool:
        saved = self.saved.get(state)
        is_delete = saved is not None and saved.operation == "delete"
        return is_delete or _changed(state.obj(), relationship).has_changes()


def _many(mapper: Mapper[Any]) -> Iterator[Any]:
    """Yield the relationships that are kept in a table of their own."""
    for relationship in mapper.relationships:
        if isinstance(relationship.secondary, Table) and not relationship.viewonly:
            yield relationship


flushing: ContextVar[Flush | None] = ContextVar("grip_edge_flushing", default=None)
"""The flush that is under way in this thread or task."""


@lru_cache(maxsize=1024)
def _tables_of(mapper: Mapper[Any]) -> frozenset[str]:
    return frozenset(table.name.lower() for table in mapper.tables if isinstance(table, Table))


@dataclass(frozen=True, slots=True)
class Kept:
    """How objects are kept in one table, as far as keys go."""

    table: str
    primary_key: Attribute | None
    scopes: tuple[tuple[str, Attribute], ...]

    @property
    def attributes(self) -> Iterator[str]:
        """The attributes of which the values count, old and new."""
        if self.primary_key is not None:
            yield self.primary_key[0]
        yield from (name for _, (name, _) in self.scopes)

    def row(self, now: Values | Current, before: Values, dialect: Dialect) -> Row:
        """Return the row, with its values as statements name them."""
        key, scopes = self.primary_key, self.scopes
        pks = () if key is None else _in_database(key, now, before, dialect)
        if not scopes:
            return Row(self.table, pks)
        scoped = [(c, v) for c, a in scopes for v in _in_database(a, now, before, dialect)]
        return Row(self.table, pks, tuple(scoped))


def _in_database(
    attribute: Attribute, now: Values | Current, before: Values, dialect: Dialect
) -> tuple[Any, ...]:
    """Return what statements have for an attribute's values: a hex string for a UUID, perhaps."""
    name, kind = attribute
    values = (now[name], before[name]) if name in before else (now[name],)
    process = _processor(kind, dialect)
    if process is None:
        return values
    return tuple(process(value) for value in values if value is not None)


@lru_cache(maxsize=1024)
def _processor(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    return kind.dialect_impl(dialect).bind_processor(dialect)


def kept_in(mapper: Mapper[Any], scopes: Scopes) -> Iterator[Kept]:
    """Yield how a mapper's objects are kept, for each of its tables."""
    for table in mapper.tables:
        if isinstance(table, Table):
            keys = [_attribute(mapper, column) for column in table.primary_key]
            named = [c for c in table.columns if scopes.has(table.name, c.name)]
            scoped = tuple((c.name, a) for c in named if (a := _attribute(mapper, c)))
            yield Kept(table.name.lower(), keys[0] if len(keys) == 1 else None, scoped)


def _attribute(mapper: Mapper[Any], column: Any) -> Attribute | None:
    if not mapper.columns.contains_column(column):
        return None
    return mapper.get_property_by_column(column).key, column.type


def columns(mapper: Mapper[Any]) -> list[str]:
    """Return the attributes that map columns."""
    return [a.key for a in mapper.column_attrs if not is_expression(mapper, a.key)]


def is_expression(mapper: Mapper[Any], name: str) -> bool:
    """Whether an attribute maps an SQL expression instead of a column."""
    return name in mapper.column_attrs and not isinstance(mapper.attrs[name].columns[0], Column)


def is_computed(mapper: Mapper[Any], name: str) -> bool:
    """Whether an attribute is none of the database's: a property, a hybrid, a synonym."""
    return name not in mapper.column_attrs and name not in mapper.relationships


def many_to_one(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the relationships to single objects."""
    return tuple(r.key for r in mapper.relationships if not r.uselist and not r.viewonly)


def partners(mapper: Mapper[Any]) -> tuple[str, ...]:
    """Return the relationships whose other side changes with this one: no row of it is written."""
    return tuple(relationship.key for relationship in _many(mapper))


def followed_by_session(mapper: Mapper[Any]) -> frozenset[str]:
    """Return the tables whose rows the session itself deletes, or detaches, with an object's."""
    tables = [
        relationship.mapper.local_table
        if relationship.secondary is None
        else relationship.secondary
        for relationship in mapper.relationships
        if relationship.direction is not RelationshipDirection.MANYTOONE
        and not relationship.passive_deletes
        and not relationship.viewonly
    ]
    return frozenset(table.name.lower() for table in tables if isinstance(table, Table))


def is_changed(session: Session, state: InstanceState[Any]) -> bool:
    """Whether the flush of a persistent object changed something."""
    # A value that is an SQL expression leaves no history: the flush expires the attribute.
    return session.is_modified(state.obj()) or bool(state.expired_attributes)


def writes_row(state: InstanceState[Any]) -> bool:
    """Whether more has changed than what other objects it is related to."""
    if state.key is None:
        return True
    session, instance = state.session, state.obj()
    if session is None or instance is None:
        return True
    is_modified = session.is_modified(instance, include_collections=False)
    return is_modified or bool(state.expired_attributes)


def known_before(state: InstanceState[Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the old values that the session knows, of what has changed."""
    committed = state.committed_state
    return {n: committed[n] for n in names if committed.get(n, _UNKNOWN) is not _UNKNOWN}


def unknown_before(state: InstanceState[Any], names: Iterable[str]) -> list[str]:
    """Return the attributes of which the session does not know what the database has.

    What was set without being loaded has no history. Having SQLAlchemy load it on the set
    (`active_history`) would raise in a set on a detached or an async object.
    """
    committed = state.committed_state
    return [name for name in names if committed.get(name) is _UNKNOWN]


def read(connection: Connection, state: InstanceState[Any], names: list[str]) -> Values:
    """Read an object's values from the database, as they are now."""
    mapper = state.mapper
    key = mapper.primary_key_from_instance(state.obj()) if state.key is None else state.key[1]
    columns = [getattr(mapper.class_, name) for name in names]
    is_it = [c == value for c, value in zip(mapper.primary_key, key, strict=True)]
    row = connection.execute(select(*columns).where(*is_it)).first()
    return {} if row is None else dict(zip(names, row, strict=True))


def _changed(instance: object, relationship: str) -> Any:
    return get_history(instance, relationship, PassiveFlag.PASSIVE_NO_INITIALIZE)


def related_before(instance: object, relationships: Iterable[str]) -> dict[str, Any]:
    """Return to which other objects an object was related, as far as that has changed."""
    changed = ((name, _changed(instance, name)) for name in relationships)
    return {name: history.deleted[0] for name, history in changed if history.deleted}


def partners_of(
    instance: object, relationships: Iterable[str], *, is_delete: bool
) -> Iterator[object]:
    """Yield the objects that are newly related to this one, or no longer."""
    for name in relationships:
        found = _changed(instance, name)
        left = (*found.deleted, *found.unchanged) if is_delete else found.deleted
        yield from (o for o in (*found.added, *left) if o is not None)


class Current:
    """An object's values now. What it does not know, it loads when that is asked for."""

    __slots__ = ("_instance", "_known")

    def __init__(self, instance: object, known: Values) -> None:
        self._instance = instance
        self._known = known

    def __getitem__(self, name: str) -> Any:
        known = self._known
        return known[name] if name in known else getattr(self._instance, name)


class Past:
    """An object as it was before: properties that are computed see the old values."""

    def __init__(self, instance: object, before: Values) -> None:
        self._instance = instance
        self._before = before

    def __getattr__(self, name: str) -> Any:
        if name in self._before:
            return self._before[name]
        found = inspect.getattr_static(type(self._instance), name, None)
        if isinstance(found, FunctionType):
            return MethodType(found, self)
        compute = getattr(found, "fget", None)  # of a property, or a hybrid
        return getattr(self._instance, name) if compute is None else compute(self)
