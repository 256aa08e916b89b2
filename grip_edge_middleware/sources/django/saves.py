"""What is saved and deleted object by object: which, and what it was before.

Django's signals cannot tell. A receiver of the app that raises loses ours, and a receiver of
`post_delete` has Django fetch all that it would delete at once. Nor do they tell a save's own
statements from others that a receiver makes on the same table, unless by a mark that a save which
fails would leave behind. So the methods that save and delete are wrapped, once in a process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Protocol, get_args

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.deletion import Collector
from django.db.models.sql.subqueries import DeleteQuery

from grip_edge_middleware.sources.django.connection import (
    deleting,
    known_otherwise,
    lock_before_reading,
    tell_writers,
    unnoticed,
    with_row,
)
from grip_edge_middleware.sources.django.schema import (
    Field,
    Kind,
    concrete,
    is_installed,
    primary_keys,
    schema,
)
from grip_edge_middleware.sql import Write
from grip_edge_middleware.types import Operation

_ANY: frozenset[Operation] = frozenset(get_args(Operation))

# As many values as any database takes in one statement.
_BATCH = 500


@dataclass(slots=True)
class Save:
    """One object that is being saved, in one table after the other."""

    instance: Model
    before: dict[str, Any] = field(default_factory=dict)
    """Old values, as far as they are wanted."""
    error: Exception | None = None
    """Why old values could not be read."""


class Listener(Protocol):
    """Wants to know what is saved and deleted."""

    def wanted(self, kind: Kind, model: Kind) -> Collection[Field]:
        """Return the fields, of those that the model's table keeps, whose old values count."""

    def saved(self, connection: BaseDatabaseWrapper, save: Save, operation: Operation) -> None:
        """Note a save."""

    def deleting(self, connection: BaseDatabaseWrapper, collector: Collector) -> Note:
        """Return what notes the deletion, which is about to be made."""


Note = Callable[[], None]

listeners: list[Listener] = []

_saving: ContextVar[Save | None] = ContextVar("grip_edge_saving", default=None)
_notes: ContextVar[list[Note]] = ContextVar("grip_edge_deletion")


def install() -> None:
    """Wrap Django's methods, once. With no listener they do what they did."""
    if not hasattr(Model.save_base, "__wrapped__"):
        _wrap(Model, "save_base", _save_base)
        _wrap(Model, "_save_table", _save_table)
        _wrap(Collector, "delete", _delete)
        _wrap(DeleteQuery, "delete_batch", _delete_batch)


def _wrap(kind: type, name: str, wrap: Callable[..., Any]) -> None:
    setattr(kind, name, wrap(getattr(kind, name)))


# --- saves ------------------------------------------------------------------------------------


def _save_base(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def save_base(self: Model, *args: Any, **kwargs: Any) -> None:
        if not listeners or not is_installed(type(self)):
            return original(self, *args, **kwargs)
        token = _saving.set(Save(self))
        try:
            return original(self, *args, **kwargs)
        finally:
            _saving.reset(token)

    return save_base


def _save_table(original: Callable[..., bool]) -> Callable[..., bool]:
    @wraps(original)
    def save_table(
        self: Model,
        raw: bool = False,
        cls: Any = None,
        force_insert: bool = False,
        force_update: bool = False,
        using: Any = None,
        update_fields: Any = None,
    ) -> bool:
        options = (raw, cls, force_insert, force_update, using, update_fields)
        save = _saving.get()
        connection = connections[using]
        if save is None or save.instance is not self:
            # A migration's, for one. Its statement may have rows to return, and no commit, so that
            # the transaction must not be that of the statement alone.
            with with_row(connection):
                return original(self, *options)
        with with_row(connection):
            if _may_update(self, cls, raw, force_insert, force_update):
                _read_before(save, cls, update_fields, connection)
            is_update: bool = _known_if_made(connection, cls, lambda: original(self, *options))
            if cls is concrete(type(self)):
                for listener in listeners:
                    listener.saved(connection, save, "update" if is_update else "insert")
        return is_update

    return save_table


def _may_update(
    instance: Model, model: Kind, raw: bool, force_insert: bool, force_update: bool
) -> bool:
    """Whether Django tries an UPDATE. It does too for a new object, with a primary key given."""
    keys = primary_keys(model)
    if force_insert or any(getattr(instance, key.attname) is None for key in keys):
        return False
    is_new = instance._state.adding and all(k.has_default() or k.has_db_default() for k in keys)
    return raw or force_update or not is_new


def _read_before(
    save: Save, model: Kind, update_fields: Collection[str] | None, connection: BaseDatabaseWrapper
) -> None:
    """Read old values, while the database has them.

    A SELECT by primary key fails only if the UPDATE would, so it breaks no transaction. In one that
    is broken already, neither is made.
    """
    try:
        wanted = [f for listener in listeners for f in listener.wanted(type(save.instance), model)]
        is_touched = update_fields is None or any(
            f.name in update_fields or f.attname in update_fields for f in wanted
        )
        if wanted and is_touched and not connection.needs_rollback:
            pk = save.instance._get_pk_val(model._meta)
            for row in read(model, [pk], wanted, connection):
                save.before.update(row)
    except Exception as error:
        save.error = error


def _known_if_made(connection: BaseDatabaseWrapper, model: Kind, write: Callable[[], Any]) -> Any:
    """Write rows that are known. If that fails when it may have been made, they are not."""
    with known_otherwise(model._meta.db_table) as own:
        try:
            return write()
        except BaseException:
            if own.has_run:
                tell_writers(connection, [Write(own.table, _ANY)])
            raise


# --- deletions --------------------------------------------------------------------------------


def _delete(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def delete(self: Collector) -> Any:
        if not listeners or not self.data:
            return original(self)
        connection = connections[self.using]
        token = _notes.set([listener.deleting(connection, self) for listener in listeners])
        of_tables = deleting.set(_tables_between(self.data))
        try:
            with with_row(connection):
                return original(self)
        finally:
            deleting.reset(of_tables)
            _notes.reset(token)

    return delete


def _tables_between(kinds: Iterable[Kind]) -> frozenset[str]:
    """Return the many-to-many tables of these models, which lose rows with their objects."""
    models = {concrete(kind) for kind in kinds if is_installed(kind)}
    sides = schema().sides.items()
    return frozenset(table for table, both in sides if any(s.model in models for s in both))


def _delete_batch(original: Callable[..., int]) -> Callable[..., int]:
    @wraps(original)
    def delete_batch(self: Any, pk_list: Sequence[Any], using: str) -> int:
        notes = _notes.get(None)
        if notes is None or not is_installed(self.model):
            return original(self, pk_list, using)
        model = concrete(self.model)
        count: int = _known_if_made(
            connections[using], model, lambda: original(self, pk_list, using)
        )
        # All at the first: the tables that follow are in the same transaction.
        while count and notes:
            notes.pop()()
        return count

    return delete_batch


# --- values that only the database knows ------------------------------------------------------


def read(
    model: Kind, pks: Sequence[Any], fields: Iterable[Field], connection: BaseDatabaseWrapper
) -> list[dict[str, Any]]:
    """Return the primary key and these fields of the rows that there are, to be written."""
    names = list(dict.fromkeys(f.attname for f in fields))
    found: list[dict[str, Any]] = []
    if pks:
        lock_before_reading(connection, model._meta.db_table)
    with unnoticed():
        for at in range(0, len(pks), _BATCH):
            rows = model._base_manager.using(connection.alias).filter(pk__in=pks[at : at + _BATCH])
            found += rows.values("pk", *names)
    return found


def after_save(instance: Model, fields: Iterable[Field], connection: BaseDatabaseWrapper) -> Model:
    """Return the object with values in place of expressions, whose outcome it does not know."""
    unknown = [f for f in fields if f.generated or _is_expression(vars(instance).get(f.attname))]
    if not unknown:
        return instance
    rows = read(concrete(type(instance)), [instance.pk], unknown, connection)
    return _with_values(instance, rows[0])


def before_delete(
    instances: Collection[Model], fields: Collection[Field], connection: BaseDatabaseWrapper
) -> Iterator[Model]:
    """Yield the objects, with the values that they did not load."""
    unknown = [i.pk for i in instances if fields and _is_partial(i, fields)]
    model = concrete(type(next(iter(instances))))
    rows = {row["pk"]: row for row in read(model, unknown, fields, connection)}
    for instance in instances:
        # It may have been given as a text.
        row = rows.get(model._meta.pk.to_python(instance.pk)) if rows else None
        yield instance if row is None else _with_values(instance, row)


def _is_expression(value: object) -> bool:
    return hasattr(value, "resolve_expression")


def _is_partial(instance: Model, fields: Iterable[Field]) -> bool:
    # `Post(pk=7).delete()` never saw the row.
    return instance._state.adding or any(f.attname not in vars(instance) for f in fields)


def _with_values(instance: Model, values: dict[str, Any]) -> Model:
    other = copy(instance)
    for name, value in values.items():
        if name != "pk":
            setattr(other, name, value)
    return other
