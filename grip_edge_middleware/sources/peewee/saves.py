"""What `save` and `delete_instance` write: the rows, as they are and as they were.

It reads what an instance does not know of itself, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, wraps
from itertools import chain
from typing import Any, Protocol

from peewee import Database, Field, Model, Node

from grip_edge_middleware.sources.peewee.database import Own
from grip_edge_middleware.sources.peewee.schema import Kind, table_of
from grip_edge_middleware.sql import Write
from grip_edge_middleware.types import Operation

# Beyond, what a recursive delete takes along is told by its table.
MAX_DEPENDENTS = 1000


@dataclass(frozen=True, slots=True)
class Saved:
    """A row that was written."""

    operation: Operation
    instance: Model
    before: Model | None = None
    """The row as it was, where that may name other topics."""

    @property
    def write(self) -> Write:
        """What is known of it without its values."""
        return Write(table_of(type(self.instance)), frozenset({self.operation}))


class Listener(Protocol):
    """Wants to know what is saved."""

    def fields_of(self, kind: Kind) -> Sequence[Field] | None:
        """Return the fields of which the values count, old and new; None if no row does."""

    def saved(self, database: Database, rows: Sequence[Saved]) -> None:
        """Note rows that were written."""

    def wrote(self, database: Database, writes: Sequence[Write] | None) -> None:
        """Note that unknown rows of tables were written."""

    def note_fault(self, what: str, error: Exception) -> None:
        """Log and count a fault: what it concerns is told by table."""


listeners: list[Listener] = []
"""Who is told of saves."""


@cache
def follow_saves() -> None:
    """Follow the two methods by which an instance is written, on whatever database."""
    save, delete_instance = Model.save, Model.delete_instance

    @wraps(save)
    def save_and_tell(
        self: Model, force_insert: bool = False, *args: Any, **kwargs: Any
    ) -> bool | int:
        with _telling(_Save(self, force_insert=force_insert)):
            return save(self, force_insert, *args, **kwargs)

    @wraps(delete_instance)
    def delete_and_tell(self: Model, recursive: bool = False, delete_nullable: bool = False) -> int:
        with _telling(_Delete(self, recursive=recursive, delete_nullable=delete_nullable)):
            return delete_instance(self, recursive, delete_nullable)

    Model.save = save_and_tell  # type: ignore[method-assign]
    Model.delete_instance = delete_and_tell  # type: ignore[method-assign]


class _Step(Protocol):
    """A method of an instance that writes rows."""

    def prepare(self) -> set[Write]:
        """Read what will be gone afterwards; return what of its statements can be told by rows."""

    def rows(self, executed: Sequence[Write]) -> list[Saved]:
        """Return the rows that it wrote."""


@contextmanager
def _telling(step: _Step) -> Iterator[None]:
    """Tell of the rows that are written in this block, rather than of its statements' tables."""
    if not listeners:
        yield
        return
    own = Own(_prepared(step))
    try:
        with own.claimed():
            yield
    finally:
        if own.database is not None:
            _tell(step, own.database, own.executed)


def _prepared(step: _Step) -> set[Write]:
    try:
        return step.prepare()
    except Exception as error:
        for listener in listeners:
            listener.note_fault("a save", error)
        return set()


def _tell(step: _Step, database: Database, executed: Sequence[Write]) -> None:
    try:
        rows = step.rows(executed)
    except Exception as error:
        for listener in listeners:
            listener.note_fault("a save", error)
            listener.wrote(database, executed)
    else:
        for listener in listeners:
            listener.saved(database, rows)


class _Save:
    def __init__(self, instance: Model, *, force_insert: bool) -> None:
        self._instance = instance
        self._may_update = not force_insert
        self._before: Model | None = None

    def prepare(self) -> set[Write]:
        instance = self._instance
        fields = _fields_of(type(instance))
        if fields is not None and self._may_update and _differs(instance, fields):
            self._before = _read(instance)
        return {Saved(operation, instance).write for operation in ("insert", "update")}

    def rows(self, executed: Sequence[Write]) -> list[Saved]:
        instance = self._instance
        fields = _fields_of(type(instance))
        if fields is not None and _is_incomplete(instance, fields):
            instance = _read(instance) or instance
        return [
            Saved(operation, instance, self._before if operation == "update" else None)
            for write in executed
            for operation in write.operations
        ]


class _Delete:
    def __init__(self, instance: Model, *, recursive: bool, delete_nullable: bool) -> None:
        self._instance = instance
        self._recursive = recursive
        self._delete_nullable = delete_nullable
        self._rows: list[Saved] = []

    def prepare(self) -> set[Write]:
        instance, fields = self._instance, _fields_of(type(self._instance))
        if fields is not None and (_is_incomplete(instance, fields) or _differs(instance, fields)):
            instance = _read(instance) or instance
        self._rows = [Saved("delete", instance)]
        too_many: set[Write] = set()
        for write, dependents in self._dependents() if self._recursive else ():
            if len(dependents) <= MAX_DEPENDENTS:
                self._rows += dependents
            else:
                too_many.add(write)
        return {row.write for row in self._rows} - too_many

    def _dependents(self) -> Iterator[tuple[Write, list[Saved]]]:
        """Yield what each of the other statements writes, as `delete_instance` has it."""
        without_nullable = not self._delete_nullable
        found = self._instance.dependencies(exclude_null_children=without_nullable)
        for condition, key in found:
            kind = key.model
            operation: Operation = "update" if key.null and without_nullable else "delete"
            if _fields_of(kind) is not None:
                query = kind.select().where(condition).limit(MAX_DEPENDENTS + 1)
                write = Write(table_of(kind), frozenset({operation}))
                yield write, [Saved(operation, row) for row in query]

    def rows(self, executed: Sequence[Write]) -> list[Saved]:
        return self._rows


def _fields_of(kind: Kind) -> set[Field] | None:
    found = [fields for listener in listeners if (fields := listener.fields_of(kind)) is not None]
    return set(chain.from_iterable(found)) if found else None


def _differs(instance: Any, fields: set[Field]) -> bool:
    """Whether the database may have other values, of those that count."""
    changed = instance.dirty_field_names
    has_key = instance._meta.primary_key is not False and instance.get_id() is not None
    return has_key and any(f.name in changed for f in fields if not f.primary_key)


def _is_incomplete(instance: Model, fields: set[Field]) -> bool:
    """Whether the instance was loaded in part, or has a value that the database computes."""
    values = instance.__data__
    is_computed = any(isinstance(value, Node) for value in values.values())
    return is_computed or any(field.name not in values for field in fields)


def _read(instance: Any) -> Model | None:
    """Read a row anew; None if it is not there, or nothing identifies it."""
    if instance._meta.primary_key is False:
        return None
    is_it = instance._meta.primary_key == instance.get_id()
    found: Model | None = type(instance).select().where(is_it).first()
    return found
