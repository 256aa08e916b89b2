"""What is known of the database's tables, from all peewee models that are defined."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from itertools import count
from typing import Any

from peewee import IntegerField, Metadata, Model

from grip_edge_middleware.sources.cascades import Reference, along_with
from grip_edge_middleware.sql import Write

Kind = type[Model]

_versions = count(1)
_version = 0


@dataclass(frozen=True, slots=True)
class Schema:
    """All tables, named in lower case."""

    kinds: Mapping[str, Collection[Kind]]
    """The models of which a table keeps the rows."""
    partners: Mapping[str, Collection[Kind]]
    """The models that a table relates, many to many."""
    primary_keys: Mapping[str, str]
    """The column of each table that has a single one, in lower case."""
    columns: Mapping[str, Collection[str]]
    references: Mapping[str, Collection[Reference]]
    """The foreign keys to a table."""

    def along_with(self, writes: Collection[Write], *, but: Collection[str]) -> Iterator[Write]:
        """Yield what the database writes by itself when this is written."""
        return along_with(self.references, writes, but=but)


def schema() -> Schema:
    """Return what is known by now."""
    _notice_new_fields()
    return _read(_version)


def table_of(kind: Kind) -> str:
    """Return the name of a model's table."""
    name: str = kind._meta.table_name
    return name.lower()


@cache
def _notice_new_fields() -> None:
    """Read all models anew when one of them is given a field, as at its definition."""
    add_field = Metadata.add_field

    @wraps(add_field)
    def add(self: Metadata, *args: Any, **kwargs: Any) -> None:
        global _version
        add_field(self, *args, **kwargs)
        _version = next(_versions)

    Metadata.add_field = add  # type: ignore[method-assign]


@lru_cache(maxsize=1)
def _read(version: int) -> Schema:
    kinds: dict[str, list[Kind]] = {}
    partners: dict[str, list[Kind]] = {}
    primary_keys: dict[str, str] = {}
    columns: dict[str, set[str]] = {}
    references: dict[str, list[Reference]] = {}
    for kind in list(_subclasses(Model)):
        table, key = table_of(kind), _primary_key(kind)
        kinds.setdefault(table, []).append(kind)
        # Tables of two schemas may share a name.
        primary_keys[table] = key if primary_keys.get(table, key) == key else ""
        named = (field.column_name for field in kind._meta.sorted_fields)
        columns.setdefault(table, set()).update(named)
        for field in kind._meta.manytomany.values():
            partners.setdefault(table_of(field.through_model), []).append(kind)
        for field, parent in kind._meta.refs.items():
            reference = Reference(table, field.on_delete or "", field.on_update or "")
            references.setdefault(table_of(parent), []).append(reference)
    return Schema(kinds, partners, primary_keys, columns, references)


def _subclasses(kind: Kind) -> Iterator[Kind]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def number_key(kind: Kind) -> str | None:
    """Return the attribute that is a model's primary key, if it is a whole number."""
    key: Any = kind._meta.primary_key
    return key.name if isinstance(key, IntegerField) else None


def _primary_key(kind: Kind) -> str:
    meta = kind._meta
    if meta.primary_key is False or meta.composite_key:
        return ""
    name: str = meta.primary_key.column_name
    return name.lower()
