"""What is known of the database's tables, from the metadata of all models that were met."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ForeignKey, Integer, MetaData, Table
from sqlalchemy.orm import Mapper
from sqlalchemy.orm.mapper import _all_registries

from grip_edge_middleware.sources.cascades import Reference, along_with
from grip_edge_middleware.sql import Write


class Schema:
    """Primary keys, and what the database itself changes along with a row."""

    def __init__(self) -> None:
        self.primary_keys: dict[str, str] = {}
        """The column of each table that has a single one, in lower case."""
        self.columns: dict[str, set[str]] = {}
        self.version = 0
        """Counts what was learnt."""
        self._references: dict[str, dict[ForeignKey, Reference]] = {}
        self._learnt: WeakKeyDictionary[MetaData, int] = WeakKeyDictionary()

    def learn(self, metadata: MetaData) -> None:
        """Take in the tables that are new."""
        if self._learnt.get(metadata) == len(metadata.tables):
            return
        tables = list(metadata.tables.values())
        for table in tables:
            self._learn_table(table)
        self.version += 1
        self._learnt[metadata] = len(tables)  # last: another thread may ask meanwhile

    def learn_mapped(self) -> None:
        """Take in the tables of all models that were declared, whoever has used them."""
        for registry in _all_registries():
            self.learn(registry.metadata)

    def _learn_table(self, table: Table) -> None:
        name = table.name.lower()
        keys = [column.name.lower() for column in table.primary_key]
        key = keys[0] if len(keys) == 1 else ""
        self.columns.setdefault(name, set()).update(column.name for column in table.columns)
        # Tables of two schemas may share a name.
        self.primary_keys[name] = key if self.primary_keys.get(name, key) == key else ""
        for reference in table.foreign_keys:
            if (parent := _parent(reference)) is not None:
                rules = Reference(name, reference.ondelete or "", reference.onupdate or "")
                self._references.setdefault(parent, {})[reference] = rules

    def along_with(
        self, writes: Collection[Write], *, but: Collection[str] = ()
    ) -> Iterator[Write]:
        """Yield what the database writes by itself when this is written: ON DELETE, ON UPDATE.

        Not what it writes to the tables `but`, nor what follows from that.
        """
        if self._references.keys().isdisjoint([written.table for written in writes]):
            return
        references = {parent: rules.values() for parent, rules in self._references.items()}
        yield from along_with(references, writes, but=but)


def _parent(reference: ForeignKey) -> str | None:
    """Return the table that is referred to, None if it is not defined yet."""
    _, _, table = reference.target_fullname.rpartition(".")[0].rpartition(".")
    return table.lower() or None


known = Schema()


def tables_of(mapper: Mapper[Any]) -> set[str]:
    """Return the tables in which the mapper's objects, and those of its subclasses, are kept.

    Those of its many-to-many relationships too: who is related is a part of what an object is.
    """
    family = list(mapper.self_and_descendants)
    related = {r.secondary for m in family for r in m.relationships}
    return _kept_in(mapper) | {table.name.lower() for table in related if isinstance(table, Table)}


def _kept_in(mapper: Mapper[Any]) -> set[str]:
    tables = {table for m in mapper.self_and_descendants for table in m.tables}
    return {table.name.lower() for table in tables if isinstance(table, Table)}


def number_key(mapper: Mapper[Any], table: str) -> str | None:
    """Return the attribute that is a table's primary key, if it is a whole number."""
    keys = mapper.primary_key
    if table not in _kept_in(mapper) or len(keys) != 1 or not isinstance(keys[0].type, Integer):
        return None
    return mapper.get_property_by_column(keys[0]).key
