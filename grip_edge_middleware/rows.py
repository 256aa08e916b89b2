"""Surrogate keys of rows and tables that nobody declared: `"auto_tags": True`.

A table is a topic with its rows' primary key for a parameter. A page that shows row 7 of `post` has
the key `%row:post:7`. A page with a list, a count or nothing of it has `%row:post:%any`, which each
change of a row purges; or `%row:post.author_id:3`, if the list is one *scope*, such as the posts of
one author. All of them have `%row:post:%all`, for changes of who knows which rows. What is no
number stands there as a digest.

Pure: no sockets, no clock, no framework.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Self
from uuid import UUID

from grip_edge_middleware.sql import Lookup, Statement
from grip_edge_middleware.topics import Topic, TopicTemplate, escape

Params = Sequence[Any] | Mapping[str, Any]
"""The parameters of a statement, by position or by name."""

# Beyond, a page has the key of all lists: it is shorter, and purged about as often.
MAX_VALUES = 100

# `%r` never arises from `escape`, so no topic of the settings has such a name.
_KEY = re.compile(r"%row:([^.:]+)[.:]")
_MAX_TOKEN = 64
_BIG = 2**63
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Scopes:
    """The columns by which lists are told apart: `author_id`, or `post.author_id` of one table."""

    names: frozenset[str] = frozenset()

    def has_any(self, table: str, columns: Iterable[str]) -> bool:
        """Whether one of these columns of this table is one."""
        return any(self.has(table, column) for column in columns)

    def has(self, table: str, column: str) -> bool:
        """Whether this column of this table is one."""
        column = column.lower()
        return column in self.names or f"{table.lower()}.{column}" in self.names


def row_template(table: str) -> TopicTemplate:
    """Return the topic template of a table's rows. Tables are told apart without their case."""
    return _template(_token(table))


def row_topic(table: str, pk: object) -> Topic:
    """Return the topic of one row."""
    return row_template(table).fill({"pk": value_text(pk)})


def scope_topic(table: str, column: str, value: object) -> Topic:
    """Return the topic of the rows that have this value in a column."""
    filled = _scope_template(table, column).fill({"pk": value_text(value)})
    return Topic(filled.name, filled.template)


def list_topic(table: str) -> Topic:
    """Return the topic of a change of some row without a single primary key."""
    template = row_template(table)
    return Topic(template.any_key, template.text)


def template_of(key: str) -> TopicTemplate | None:
    """Return the template of the table whose row, scope or list has this key."""
    match = _KEY.match(key)
    return None if match is None else _template(match[1])


def keys_read(
    statement: Statement, params: Params, primary_keys: Mapping[str, str], scopes: Scopes
) -> Iterator[str]:
    """Yield the keys of what a statement read. `primary_keys` has each table's, if it is single."""
    yield from Reading.of(statement, primary_keys, scopes).keys(params)


@dataclass(frozen=True, slots=True)
class _Keyed:
    """Rows that were looked up by values which their keys have."""

    lookup: Lookup
    template: TopicTemplate

    def keys(self, params: Params) -> list[str]:
        return [_name(self.template, value) for value in values_of(self.lookup, params)]


@dataclass(frozen=True, slots=True)
class _TableRead:
    """How a statement reads one table."""

    keyed: tuple[_Keyed, ...]
    """By its primary key, or by a scope: the first that tells values counts."""
    any_key: tuple[str]

    @classmethod
    def of(
        cls, table: str, lookups: Iterable[Lookup], primary_key: str | None, scopes: Scopes
    ) -> Self:
        found = [lookup for lookup in lookups if lookup.table == table]
        rows = [_Keyed(x, row_template(table)) for x in found if x.column == primary_key]
        scoped = [
            _Keyed(x, _scope_template(table, x.column))
            for x in found
            if scopes.has(table, x.column)
        ]
        return cls((*rows[:1], *scoped[:1]), (row_template(table).any_key,))

    def keys(self, params: Params) -> Sequence[str]:
        for keyed in self.keyed:
            if keys := keyed.keys(params):
                return keys
        return self.any_key


@dataclass(frozen=True, slots=True)
class Reading:
    """What a statement reads, whatever its parameters are."""

    tables: tuple[_TableRead, ...]
    is_understood: bool
    single: tuple[int | str, str] | None = field(init=False)
    """Where the only value stands, and what precedes it in the key, if all goes by one value."""

    def __post_init__(self) -> None:
        first = self.tables[0].keyed[:1] if len(self.tables) == 1 else ()
        lookups = [(k.lookup.params, k.template.literals[0]) for k in first]
        single = [(params[0], prefix) for params, prefix in lookups if len(params) == 1]
        object.__setattr__(self, "single", single[0] if single else None)

    @classmethod
    def of(cls, statement: Statement, primary_keys: Mapping[str, str], scopes: Scopes) -> Self:
        """Return what a statement reads. `primary_keys` has each table's, if it is single."""
        tables = (
            _TableRead.of(table, statement.lookups, primary_keys.get(table), scopes)
            for table in statement.reads
        )
        return cls(tuple(tables), statement.is_understood)

    def keys(self, params: Params) -> Sequence[str]:
        """Return the keys of what was read with these parameters."""
        if self.single is not None:
            at, prefix = self.single
            try:  # mostly it is a number, of which nothing is to be escaped
                if type(value := params[at]) is int and -_BIG < value < _BIG:  # type: ignore[index]
                    return (f"{prefix}{value}",)
            except (LookupError, TypeError):
                pass
        tables = self.tables
        if len(tables) == 1:
            return tables[0].keys(params)
        return [key for table in tables for key in table.keys(params)]


def _name(template: TopicTemplate, value: object) -> str:
    """Return the name of the topic that has the value."""
    return template.fill({"pk": value_text(value)}).name


def values_of(lookup: Lookup, params: Params) -> list[object]:
    """Return what was looked for, nothing if that is too much or cannot be told."""
    try:
        values = [params[at] for at in lookup.params]  # type: ignore[index]
    except (LookupError, TypeError):
        return []
    # Nothing equals NULL, and what has parts may be a list of values.
    is_plain = all(v is not None and not isinstance(v, list | tuple | dict | set) for v in values)
    return values if is_plain and len(values) <= MAX_VALUES else []


def value_text(value: object) -> str:
    """Return one text for all forms of a value that a database may take for equal.

    So a page that looked for `'007'` or `7.0` has the key of row 7. Values that share a text are
    purged together. What is no number is shortened to a digest: a session's key, or a token, must
    not be read from a header.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, int):
        return str(int(value))
    said = _said(value)
    return _number(said) or blake2b(said.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _said(value: object) -> str:
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    said = str(value).strip().casefold()
    return said.replace("-", "") if _UUID.fullmatch(said) else said


def _number(said: str) -> str | None:
    if not said[:1].isdecimal() and said[:1] not in ("+", "-", "."):
        return None
    try:
        number = Decimal(said)
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number.adjusted()) > _MAX_TOKEN:
        return None
    return f"{number.normalize():f}" if number else "0"


@lru_cache(maxsize=4096)
def _template(token: str) -> TopicTemplate:
    return TopicTemplate(f"%row:{token}:{{pk}}", (f"%row:{token}:", ""), ("pk",))


@lru_cache(maxsize=4096)
def _scope_template(table: str, column: str) -> TopicTemplate:
    literals = (f"%row:{_token(table)}.{_token(column)}:", "")
    return TopicTemplate(row_template(table).text, literals, ("pk",))


@lru_cache(maxsize=4096)
def _token(name: str) -> str:
    """Return a table's or column's name as a part of keys."""
    token = escape(name.lower(), frozenset("."))
    if len(token) <= _MAX_TOKEN:
        return token
    return f"%h{blake2b(token.encode(), digest_size=16).hexdigest()}"
