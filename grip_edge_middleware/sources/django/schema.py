"""What is known of the database's tables, from the installed models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import ForeignKey, IntegerField, ManyToManyField, Model
from django.db.models.signals import class_prepared

from grip_edge_middleware.changes import Row
from grip_edge_middleware.rows import Scopes

Kind = type[Model]
Field = Any
"""A concrete field: what maps a column."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a many-to-many field, and how its table refers to both."""

    through: Kind
    key: ForeignKey[Any, Any]
    other: ForeignKey[Any, Any]
    is_symmetrical: bool

    @property
    def model(self) -> Kind:
        """Whose objects are on this side."""
        return concrete(self.key.remote_field.model)

    @property
    def reversed(self) -> Side:
        """The other side."""
        return Side(self.through, self.other, self.key, self.is_symmetrical)


@dataclass(slots=True)
class Schema:
    """The tables, in lower case, and the models that they keep."""

    kinds: dict[str, list[Kind]] = field(default_factory=dict)
    """With the proxies and those that inherit from a table's model."""
    primary_keys: dict[str, str] = field(default_factory=dict)
    """The column of each table that has a single one."""
    columns: dict[str, set[str]] = field(default_factory=dict)
    sides: dict[str, list[Side]] = field(default_factory=dict)
    """What the tables of many-to-many fields relate: first where the field is, then the reverse."""

    @classmethod
    def of_apps(cls) -> Schema:
        """Read all installed models."""
        schema = cls()
        for kind in apps.get_models(include_auto_created=True):
            for model in kept_models(kind):
                schema.kinds.setdefault(table_name(model._meta.db_table), []).append(kind)
            if not kind._meta.proxy:
                schema._learn_key(kind)
                for relation in kind._meta.local_many_to_many:
                    # What packages put there besides saves its rows itself, as taggit does.
                    if isinstance(relation, ManyToManyField):
                        schema._learn_sides(relation)
        return schema

    def _learn_key(self, kind: Kind) -> None:
        table, keys = table_name(kind._meta.db_table), primary_keys(kind)
        key = (keys[0].column or "").lower() if len(keys) == 1 else ""
        # Models that the app does not manage may share a table.
        self.primary_keys[table] = key if self.primary_keys.get(table, key) == key else ""
        named = (f.column for f in kind._meta.local_concrete_fields if f.column)
        self.columns.setdefault(table, set()).update(named)

    def _learn_sides(self, relation: ManyToManyField[Any, Any]) -> None:
        through: Any = relation.remote_field.through
        names = (relation.m2m_field_name(), relation.m2m_reverse_field_name())
        key, other = (through._meta.get_field(name) for name in names)
        side = Side(through, key, other, relation.remote_field.symmetrical)
        self.sides.setdefault(table_name(through._meta.db_table), []).extend([side, side.reversed])


_known: dict[str, Schema] = {}


def schema() -> Schema:
    """Return what is known by now."""
    known = _known.get("installed")
    if known is None:
        known = Schema.of_apps() if apps.models_ready else Schema()
        if apps.models_ready:
            _known["installed"] = known
    return known


def _forget(sender: Kind, **_: object) -> None:
    # Migrations make models of their own, which are nobody's.
    if is_installed(sender):
        _known.clear()


class_prepared.connect(_forget, dispatch_uid="grip_edge")


def is_installed(kind: Kind) -> bool:
    """Whether it is a model as the app has it, and not one of a migration."""
    return kind._meta.apps is apps


def concrete(kind: Kind) -> Kind:
    """Return the model itself of a proxy."""
    return kind._meta.concrete_model or kind


def kept_models(kind: Kind) -> list[Kind]:
    """Return the models that keep an object's rows: its own, and those that it inherits from."""
    model = concrete(kind)
    return list(dict.fromkeys([model, *map(concrete, model._meta.get_parent_list())]))


def table_name(db_table: str) -> str:
    """Return the name as statements have it, without a schema that is a part of it."""
    return db_table.rpartition('"."')[2].strip('"').lower()


@dataclass(frozen=True, slots=True)
class Kept:
    """How objects are kept in one table, as far as keys go."""

    model: Kind
    table: str
    primary_key: Field | None
    scopes: tuple[Field, ...]

    @classmethod
    def of(cls, model: Kind, scopes: Scopes) -> Kept:
        """Read a model, of which this is no proxy."""
        table, keys = table_name(model._meta.db_table), primary_keys(model)
        columns = (f for f in model._meta.local_concrete_fields if f.column)
        scoped = tuple(f for f in columns if scopes.has(table, f.column or ""))
        return cls(model, table, keys[0] if len(keys) == 1 else None, scoped)

    def row(
        self, instance: Model, before: Mapping[str, Any], connection: BaseDatabaseWrapper
    ) -> Row:
        """Return the row, with its values as statements name them: a hex string for a UUID."""
        key = self.primary_key
        pk = None if key is None else _in_database(key, getattr(instance, key.attname), connection)
        scopes = (
            (f.column, _in_database(f, value, connection))
            for f in self.scopes
            for value in _values(f.attname, instance, before)
        )
        return Row(self.table, () if pk is None else (pk,), tuple(scopes))


def primary_keys(model: Kind) -> list[Field]:
    """Return the fields of a model's primary key, which are several if it is a composite one."""
    return list(getattr(model._meta, "pk_fields", None) or [model._meta.pk])


def number_key(kind: Kind) -> str | None:
    """Return the attribute that is a model's primary key, if it is a whole number."""
    keys = primary_keys(kind)
    is_number = len(keys) == 1 and isinstance(keys[0], IntegerField)
    return keys[0].attname if is_number else None


def _values(name: str, instance: Model, before: Mapping[str, Any]) -> Iterator[Any]:
    yield getattr(instance, name)
    if name in before:
        yield before[name]


def _in_database(kept: Field, value: Any, connection: BaseDatabaseWrapper) -> Any:
    return None if value is None else kept.get_db_prep_value(value, connection, prepared=False)
