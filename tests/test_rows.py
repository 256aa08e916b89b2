"""The keys of rows and tables: on the page that reads them, and on the write that purges it."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.changes import Change, Row, Rows
from grip_edge_middleware.rows import (
    MAX_VALUES,
    Scopes,
    keys_read,
    row_template,
    row_topic,
    scope_topic,
    template_of,
    value_text,
)
from grip_edge_middleware.sql import read_statement
from grip_edge_middleware.stores import Claim
from grip_edge_middleware.topics import MAX_NAME, TopicTemplate, overlap


class Color(str, Enum):  # noqa: UP042 - whose text is not its value
    RED = "red"


class Size(IntEnum):
    LARGE = 3


PRIMARY_KEYS = {"post": "id", "author": "id", "post_tag": ""}
SCOPES = Scopes(frozenset({"author_id", "comment.post_id"}))
SOME_ID = UUID("0f5b3c1e-0000-4000-8000-00000000abcd")


def read(sql: str, *params: Any, scopes: Scopes = SCOPES) -> list[str]:
    return list(keys_read(read_statement(sql), params, PRIMARY_KEYS, scopes))


@pytest.mark.parametrize(
    ("sql", "params", "keys"),
    [
        ("SELECT * FROM post WHERE post.id = ?", (7,), ["%row:post:7"]),
        ("SELECT * FROM post WHERE id = ? LIMIT ?", (7, 1), ["%row:post:7"]),
        ("SELECT * FROM post WHERE id IN (?, ?)", (7, 8), ["%row:post:7", "%row:post:8"]),
        ("SELECT ? FROM post WHERE id = ?", (1, 7), ["%row:post:7"]),
        ("SELECT * FROM post", (), ["%row:post:%any"]),
        ("SELECT count(*) FROM post WHERE title = ?", ("x",), ["%row:post:%any"]),
        ("SELECT * FROM post WHERE author_id = ?", (3,), ["%row:post.author_id:3"]),
        ("SELECT * FROM comment WHERE post_id = ?", (7,), ["%row:comment.post_id:7"]),
        ("SELECT * FROM post WHERE post_id = ?", (7,), ["%row:post:%any"]),
        ("SELECT * FROM post WHERE id = ? AND author_id = ?", (7, 3), ["%row:post:7"]),
        ("SELECT * FROM post WHERE id = ?", (None,), ["%row:post:%any"]),
        ("SELECT * FROM post_tag WHERE post_id = ?", (7,), ["%row:post_tag:%any"]),
        ("SELECT 1", (), []),
        ("SELECT * FROM post WHERE id = ?", ([1, 2],), ["%row:post:%any"]),
        ("SELECT * FROM post WHERE id = ?", (), ["%row:post:%any"]),
    ],
)
def test_what_a_statement_reads_are_keys(sql: str, params: tuple[Any], keys: list[str]) -> None:
    assert read(sql, *params) == keys


def test_a_join_has_keys_of_each_table() -> None:
    sql = "SELECT * FROM post JOIN author ON author.id = post.author_id WHERE post.id = ?"

    assert sorted(read(sql, 7)) == ["%row:author:%any", "%row:post:7"]


def test_parameters_may_have_names() -> None:
    sql = "SELECT * FROM post WHERE id = %(id_1)s::INTEGER"

    assert list(keys_read(read_statement(sql), {"id_1": 7}, PRIMARY_KEYS, SCOPES)) == [
        "%row:post:7"
    ]


def test_very_many_rows_have_the_key_of_all_lists() -> None:
    values = range(MAX_VALUES + 1)
    sql = f"SELECT * FROM post WHERE id IN ({', '.join('?' for _ in values)})"

    assert read(sql, *values) == ["%row:post:%any"]


def test_without_scopes_a_list_is_any_list() -> None:
    sql = "SELECT * FROM post WHERE author_id = ?"

    assert read(sql, 3, scopes=Scopes()) == ["%row:post:%any"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (7, "7"),
        (7, "007"),
        (7, 7.0),
        (7, Decimal("7.00")),
        (7, " 7 "),
        (1, True),
        (0, "-0"),
        (10, "1e1"),
        ("abc", "ABC"),
        (Color.RED, "red"),
        (Size.LARGE, 3),
        (SOME_ID, str(SOME_ID)),
        (SOME_ID, SOME_ID.hex.upper()),
        (b"\x01\xff", memoryview(b"\x01\xff")),
    ],
)
def test_what_a_database_takes_for_equal_is_one_row(one: object, other: object) -> None:
    assert value_text(one) == value_text(other)


@pytest.mark.parametrize("value", ["s3cr3t-session-key", SOME_ID, b"token", "a b", "ü"])
def test_what_is_no_number_cannot_be_read_from_its_key(value: object) -> None:
    prefix, _, digest = row_topic("django_session", value).name.rpartition(":")

    assert prefix == "%row:django_session"
    assert re.fullmatch("[0-9a-f]{16}", digest)


@pytest.mark.parametrize("one_of", [("a", "b"), (7, 8), ("7a", 7), ("", "x"), ("nan", 0)])
def test_what_differs_has_keys_of_its_own(one_of: tuple[object, object]) -> None:
    assert value_text(one_of[0]) != value_text(one_of[1])


@given(st.one_of(st.text(), st.integers(), st.floats(), st.decimals(), st.binary(), st.uuids()))
def test_any_value_makes_one_key(value: object) -> None:
    name = row_topic("post", value).name

    assert name.isascii()
    assert not set(name) & set(" ,;\r\n")
    assert len(name) <= MAX_NAME
    assert template_of(name) == row_template("post")


@pytest.mark.parametrize("table", ["post", "Post", "a.b", "größe" * 20, "x" * 63, "a b,c:d%e"])
def test_any_table_is_known_by_its_keys(table: str) -> None:
    template = row_template(table)

    for key in (row_topic(table, 7).name, template.any_key, template.type_key):
        assert template_of(key) == template


@given(st.text("abAB{}%row:.-_~/@|", min_size=1))
def test_no_topic_of_the_settings_is_a_row(text: str) -> None:
    try:
        template = TopicTemplate.parse(text)
    except ValueError:
        return

    assert overlap(template, row_template("a")) is None


# --- a write purges what was read -------------------------------------------------------------


def purged(*changes: Change) -> set[str]:
    claims = (Claim(c.topic, c.settings, (), is_escalated=c.is_of_all) for c in changes)
    return {key for claim in claims for key in claim.keys}


def test_a_change_of_a_row_purges_the_row_and_the_lists() -> None:
    rows = Rows(SCOPES, throttle=1.0)

    assert purged(*rows.changes(Row("post", (7,), (("author_id", 3), ("author_id", 4))))) == {
        "%row:post:7",
        "%row:post:%any",
        "%row:post.author_id:3",
        "%row:post.author_id:4",
    }


def test_a_row_without_a_single_primary_key_purges_the_lists() -> None:
    rows = Rows(SCOPES, throttle=1.0)

    assert purged(*rows.changes(Row("post_tag", ()))) == {"%row:post_tag:%any"}


def test_unknown_rows_purge_whatever_reads_the_table() -> None:
    rows = Rows(SCOPES, throttle=1.0)

    assert purged(rows.change_of_all("Post")) == {"%row:post:%all"}


@given(st.integers() | st.integers(-(2**80), 2**80) | st.just(10**300) | st.booleans())
def test_a_page_has_the_key_that_the_write_of_any_number_purges(number: int) -> None:
    assert read("SELECT * FROM post WHERE id = ?", number) == [row_topic("post", number).name]
    scope = scope_topic("comment", "post_id", number).name
    assert read("SELECT * FROM comment WHERE post_id = ?", number) == [scope]
