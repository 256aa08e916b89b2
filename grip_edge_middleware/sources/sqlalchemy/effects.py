"""What a statement reads and writes, worked out once for each that SQLAlchemy has compiled.

That is noted on the compiled statement: so it is as near as can be, and goes when SQLAlchemy's own
cache drops the statement. It holds for a text, since listeners may rewrite it and a list of values
makes it longer, and for as long as nothing new is known of the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import CompoundSelect, MetaData, Select, Table
from sqlalchemy.sql.visitors import iterate

from grip_edge_middleware.outbox import TABLE as OUTBOX
from grip_edge_middleware.rows import Params, Reading, Scopes, values_of
from grip_edge_middleware.sources.sqlalchemy.schema import known
from grip_edge_middleware.sources.statements import counts_rows, row_lookup, writes_of
from grip_edge_middleware.sql import LONGEST_KEPT, Lookup, Write, read_statement
from grip_edge_middleware.types import Operation

EFFECT = "_grip_edge_effect"
"""The attribute of a compiled statement that has its effect."""

Keys = tuple[object, ...]
"""The primary keys of the only rows that a statement can have touched; none if it can be any."""

LASTING = frozenset({int, str, bytes, UUID})
"""The types of keys that never change, and equal those only that a database takes for the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Effect:
    """What a statement writes, as far as that is the same each time that it is executed."""

    writes: Sequence[Write] | None = None
    """None if it can be anything."""
    lookup: Lookup | None = None
    """Where among the parameters the primary keys stand of the only rows that it can touch."""
    is_counted: bool = False
    """Whether a cursor that counts no row says that nothing was written."""
    metadata: MetaData | None = None
    """Where the table is declared, and those perhaps that refer to it."""
    text: str = ""
    """Nothing if it is the same for all texts."""
    version: int = 0

    # Worked out here, for they are asked for each time.
    is_nothing: bool = field(init=False)
    at: int | str | None = field(init=False)
    """Where the primary key stands, if there is a single one."""

    def __post_init__(self) -> None:
        params = () if self.lookup is None else self.lookup.params
        object.__setattr__(self, "is_nothing", self.writes is not None and not self.writes)
        object.__setattr__(self, "at", params[0] if len(params) == 1 else None)

    def keys(self, params: Params) -> Keys:
        """Return the primary keys that are among the parameters."""
        lookup = self.lookup
        if lookup is None or not params:
            return ()
        try:  # mostly it is one number
            if self.at is not None and type(key := params[self.at]) is int:  # type: ignore[index]
                return (key,)
        except (LookupError, TypeError):
            return ()
        return tuple(values_of(lookup, params))

    @property
    def is_by_key(self) -> bool:
        """Whether what it looks up still is a primary key, after all that was learnt since."""
        lookup = self.lookup
        return lookup is not None and known.primary_keys.get(lookup.table) == lookup.column


ANYTHING = Effect()
NOTHING = Effect(())


def effect_of(text: str, compiled: Any) -> Effect:
    """Return what a statement writes, given how it was compiled, if it was."""
    if compiled is None:
        return _effect_of_text(text) if len(text) > LONGEST_KEPT else _kept(text, known.version)
    effect: Effect | None = getattr(compiled, EFFECT, None)
    if effect is None or (effect.text and (effect.text != text or effect.version != known.version)):
        effect = compiled._grip_edge_effect = _find_effect(text, compiled)
    return effect


def _effect_of_text(text: str) -> Effect:
    version, writes = known.version, writes_of(text)
    return Effect(
        writes,
        row_lookup(text, writes, known.primary_keys),
        is_counted=writes is not None and len(writes) == 1 and counts_rows(text),
        text=text,
        version=version,
    )


@lru_cache(maxsize=1024)
def _kept(text: str, version: int) -> Effect:
    return _effect_of_text(text)


# Anything else may be text of the app's, or compiled by it.
_SELECTS = frozenset({Select, CompoundSelect})


def _find_effect(text: str, compiled: Any) -> Effect:
    if getattr(compiled, "ctes", None):
        return _effect_of_text(text)
    if type(compiled.statement) in _SELECTS:
        return NOTHING
    is_crud = any(getattr(compiled, name, False) for name in ("isinsert", "isupdate", "isdelete"))
    if not is_crud or _says_more(compiled):
        return _effect_of_text(text)
    table = compiled.compile_state.dml_table
    if not isinstance(table, Table):
        writes = writes_of(str(compiled))
        lookup = row_lookup(text, writes, known.primary_keys)
        return Effect(writes, lookup, counts_rows(text), None, text, known.version)
    return NOTHING if table.name == OUTBOX else _effect_on(table, text, compiled)


def _says_more(compiled: Any) -> bool:
    """Whether it is INSERT OR REPLACE, or MySQL's UPDATE of several tables."""
    is_of_several = getattr(compiled.compile_state, "is_multitable", False)
    return is_of_several or bool(getattr(compiled.statement, "_prefixes", ()))


def _effect_on(table: Table, text: str, compiled: Any) -> Effect:
    metadata: MetaData = table.metadata
    known.learn(metadata)
    if compiled.isinsert:
        # ON CONFLICT, ON DUPLICATE KEY
        is_upsert = getattr(compiled.statement, "_post_values_clause", None) is not None
        operations: tuple[Operation, ...] = ("insert", "update") if is_upsert else ("insert",)
        # The text, of a row or of a thousand, says no more.
        return Effect(_written(table.name, *operations), metadata=metadata)
    version, writes = (
        known.version,
        _written(table.name, "update" if compiled.isupdate else "delete"),
    )
    lookup = row_lookup(text, writes, known.primary_keys)
    return Effect(writes, lookup, counts_rows(text), metadata, text, version)


@lru_cache(maxsize=4096)
def _written(table: str, *operations: Operation) -> Sequence[Write]:
    return (Write(table.lower(), frozenset(operations)),)


# --- reads --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Noted:
    """What a statement reads."""

    reading: Reading
    text: str
    version: int
    scopes: Scopes


def reading_of(text: str, compiled: Any, scopes: Scopes) -> Reading:
    """Return what a statement reads, given how it was compiled, if it was."""
    noted: _Noted | None = getattr(compiled, "_grip_edge_reading", None)
    if noted is None or not (
        noted.text == text and noted.version == known.version and noted.scopes is scopes
    ):
        if noted is None and compiled is not None and compiled.statement is not None:
            _learn_from(compiled.statement)
        version = known.version
        reading = (_read if len(text) > LONGEST_KEPT else _read_kept)(text, version, scopes)
        if compiled is None:
            return reading
        noted = compiled._grip_edge_reading = _Noted(reading, text, version, scopes)
    return noted.reading


def _read(text: str, version: int, scopes: Scopes) -> Reading:
    return Reading.of(read_statement(text), known.primary_keys, scopes)


# Lists of values, in which one compiled statement has many texts.
_read_kept = lru_cache(maxsize=1024)(_read)


def _learn_from(statement: Any) -> None:
    """Take in the tables of a statement."""
    for element in iterate(statement):
        if isinstance(element, Table):
            known.learn(element.metadata)
