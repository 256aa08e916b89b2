"""What a statement wrote, as its text, its parameters and its cursor tell."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from grip_edge_middleware.rows import Params
from grip_edge_middleware.sources.statements import rows_of, writes_of
from grip_edge_middleware.sql import read_statement


@pytest.fixture
def cursor() -> Iterator[sqlite3.Cursor]:
    """One that has just updated no row."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE score (id INTEGER PRIMARY KEY, home INTEGER)")
        yield connection.execute("UPDATE score SET home = 1 WHERE id = 99")


def tables(text: str, cursor: sqlite3.Cursor | None = None) -> list[str] | None:
    found = writes_of(text, cursor)
    return None if found is None else [write.table for write in found]


def test_a_statement_that_found_no_row_wrote_nothing(cursor: sqlite3.Cursor) -> None:
    assert tables("UPDATE score SET home = 1 WHERE id = 99", cursor) == []
    assert tables("DELETE FROM score WHERE id = 99;", cursor) == []


def test_of_several_statements_nobody_knows_whose_rows_were_counted(
    cursor: sqlite3.Cursor,
) -> None:
    text = "UPDATE score SET home = 0 WHERE id = 99; UPDATE score SET home = 1"

    assert tables(text, cursor) == ["score"]


def test_an_insert_is_not_counted(cursor: sqlite3.Cursor) -> None:
    assert tables("INSERT INTO score (home) VALUES (1)", cursor) == ["score"]


def test_the_outbox_is_nobodys_business() -> None:
    assert tables("INSERT INTO grip_edge_outbox (id) VALUES (1)") == []
    assert tables("TRUNCATE score, grip_edge_outbox") == ["score"]


def test_what_does_not_say_what_it_writes_may_write_anything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert [tables("CALL report(1)") for _ in range(2)] == [None, None]
        assert tables("TRUNCATE score CASCADE") is None

    assert caplog.text.count("'CALL report(1)' does not say what it writes") == 1


@pytest.mark.parametrize(
    "query", ["SELECT * FROM score", "WITH s AS (TABLE score) SELECT * FROM s"]
)
def test_a_query_that_is_not_understood_writes_nothing(query: str) -> None:
    text = rf"{query} WHERE name LIKE 'it\'s'"

    assert not read_statement(text).is_understood
    assert tables(text) == []


@pytest.mark.parametrize(
    ("text", "params", "keys"),
    [
        ("UPDATE score SET home = home + 1 WHERE id = ?", (7,), (7,)),
        ("UPDATE score SET home = ? WHERE id IN (?, ?)", (1, 7, 8), (7, 8)),
        ("DELETE FROM score WHERE score.id = %(id)s", {"id": 7}, (7,)),
        ("UPDATE score SET id = ? WHERE id = ?", (8, 7), ()),
        ("UPDATE score SET home = 1 WHERE home = ?", (7,), ()),
        ("UPDATE score SET home = 1 WHERE id = ? OR home = 2", (7,), ()),
        ("UPDATE other SET home = 1 WHERE id = ?", (7,), ()),
        ("INSERT INTO score (id) VALUES (?)", (7,), ()),
        ("UPDATE score SET home = 1", (), ()),
    ],
)
def test_a_statement_may_tell_its_rows(text: str, params: Params, keys: tuple[object, ...]) -> None:
    assert rows_of(text, params, writes_of(text), {"score": "id"}) == keys
