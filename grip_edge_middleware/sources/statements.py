"""What a statement writes, as far as its text, its parameters and its cursor tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from grip_edge_middleware.outbox import TABLE as OUTBOX
from grip_edge_middleware.rows import Params, values_of
from grip_edge_middleware.sql import Lookup, Write, read_statement

logger = logging.getLogger(__name__)


def writes_of(text: str, cursor: Any = None) -> Sequence[Write] | None:
    """Return what was written, None if it can be anything. The cursor knows how many rows."""
    read = read_statement(text)
    writes = tuple(write for write in read.writes if write.table != OUTBOX)
    if not read.is_understood and (writes or not _is_query(text)):
        _warn_of_anything(text[:60])
        return None
    return () if len(writes) == 1 and touched_nothing(text, cursor) else writes


def _is_query(text: str) -> bool:
    return text.lstrip(" (\t\r\n")[:6].upper().startswith(("SELECT", "VALUES", "WITH"))


@lru_cache(maxsize=64)
def _warn_of_anything(beginning: str) -> None:
    """Once, for the cache holds the memory of having said it."""
    logger.warning(
        "%r does not say what it writes, so everything counts as changed; if that is too much, "
        "execute it within edge.suppress(), and say what it changes by edge.submit",
        beginning,
    )


def touched_nothing(text: str, cursor: Any) -> bool:
    """Whether an UPDATE or DELETE found no row."""
    return counts_rows(text) and found_nothing(cursor)


def counts_rows(text: str) -> bool:
    """Whether it is an UPDATE or DELETE, and nothing besides."""
    is_alone = ";" not in text.rstrip("; \t\r\n")
    return is_alone and text.lstrip()[:6].upper() in ("UPDATE", "DELETE")


def found_nothing(cursor: Any) -> bool:
    """Whether a cursor has counted the rows that were written, and there were none."""
    # With RETURNING, rows are counted only when they are fetched.
    try:
        return cursor.rowcount == 0 and not cursor.description
    except AttributeError:
        return False


def rows_of(
    text: str, params: Params, writes: Sequence[Write] | None, primary_keys: Mapping[str, str]
) -> tuple[object, ...]:
    """Return the primary keys of the only rows that can have been written; nothing if any can."""
    lookup = row_lookup(text, writes, primary_keys) if params else None
    return () if lookup is None else tuple(values_of(lookup, params))


def row_lookup(
    text: str, writes: Sequence[Write] | None, primary_keys: Mapping[str, str]
) -> Lookup | None:
    """Return where a statement says the primary keys of the only rows that it can write.

    `UPDATE score SET home = home + 1 WHERE id = ?` tells them. If it assigned another primary key,
    it would not be one of its lookups.
    """
    if not writes or len(writes) != 1:
        return None
    table = writes[0].table
    for lookup in read_statement(text).lookups:
        if lookup.table == table and lookup.column == primary_keys.get(table):
            return lookup
    return None
