"""SQL: no table that a statement names is missed, and a lookup tells all rows that count."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from random import Random
from re._constants import MAXREPEAT  # type: ignore[import-not-found]
from re._parser import parse  # type: ignore[import-not-found]
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.sql import (
    LONGEST_KEPT,
    Lookup,
    Statement,
    Write,
    _read,
    _token,
    _tokenize,
    read_statement,
)
from grip_edge_middleware.types import Operation

OPERATIONS: dict[str, Operation] = {"i": "insert", "u": "update", "d": "delete"}


def statement(
    reads: str = "", writes: str = "", lookups: str = "", *, is_understood: bool = True
) -> Statement:
    """Build a statement from a line: `a b`, `a:iu b:d`, `a.id=0,1 b.name=name`."""
    return Statement(
        frozenset(reads.split()),
        tuple(_write(text) for text in writes.split()),
        tuple(_lookup(text) for text in lookups.split()),
        is_understood,
    )


def _write(text: str) -> Write:
    table, _, letters = text.rpartition(":")
    return Write(table, frozenset(OPERATIONS[letter] for letter in letters))


def _lookup(text: str) -> Lookup:
    name, _, params = text.partition("=")
    table, _, column = name.rpartition(".")
    places = (int(place) if place.isdigit() else place for place in params.split(","))
    return Lookup(table, column, tuple(places))


# --- (text, tables read) --------------------------------------------------------------------------

READS = [
    ("SELECT 1", ""),
    ("VALUES (1), (2)", ""),
    ("", ""),
    (" \n -- nothing\n /* at all */ ;; ", ""),
    ("select * from post", "post"),
    ("SELECT * FROM post;", "post"),
    ("(SELECT a FROM post)", "post"),
    ("((SELECT a FROM post) UNION ALL (SELECT a FROM draft)) ORDER BY a", "post draft"),
    ("SELECT a FROM post UNION SELECT a FROM draft EXCEPT SELECT a FROM spam", "post draft spam"),
    ("SELECT a FROM post INTERSECT VALUES (1), (2)", "post"),
    ("SELECT * FROM post, author", "post author"),
    ("SELECT * FROM post AS p, author a, tag", "post author tag"),
    ("SELECT * FROM post p JOIN author a ON p.author_id = a.id", "post author"),
    ("SELECT * FROM post JOIN (post_tag JOIN tag USING (tag_id)) ON 1 = 1", "post post_tag tag"),
    ("SELECT * FROM (post), ((author))", "post author"),
    ("SELECT * FROM (post, author) LEFT JOIN tag ON (a = b)", "post author tag"),
    ("SELECT * FROM a JOIN b USING (x, y), c", "a b c"),
    ("SELECT * FROM a JOIN b ON f(a.x, b.y) AND a.z IN (1, 2), c", "a b c"),
    ("SELECT * FROM a JOIN b ON a.x = ANY(ARRAY[1, b.y]), c", "a b c"),
    ("SELECT * FROM a NATURAL JOIN b CROSS JOIN c FULL OUTER JOIN d ON e = f", "a b c d"),
    ("SELECT STRAIGHT_JOIN a.x FROM a STRAIGHT_JOIN b", "a b"),
    ("SELECT (SELECT max(x) FROM b WHERE b.y = a.y) FROM a", "a b"),
    ("SELECT * FROM (SELECT * FROM a) AS x, b", "a b"),
    ("SELECT 1 WHERE EXISTS (SELECT 1 FROM a) AND x IN (SELECT y FROM b)", "a b"),
    ("SELECT ARRAY(SELECT x FROM a), ARRAY[(SELECT y FROM b)]", "a b"),
    ("SELECT CASE WHEN (SELECT 1 FROM a) = 1 THEN (SELECT 2 FROM b) END FROM c", "a b c"),
    ("SELECT * FROM a ORDER BY (SELECT x FROM b) LIMIT (SELECT count(*) FROM c)", "a b c"),
    ("SELECT * FROM a JOIN LATERAL (SELECT * FROM b WHERE b.x = a.x) s ON true", "a b"),
    ("SELECT * FROM a CROSS JOIN LATERAL unnest(a.xs) AS x", "a"),
    ("SELECT * FROM ONLY a, ONLY (b), only", "a b only"),
    ("SELECT * FROM a TABLESAMPLE SYSTEM (10) REPEATABLE (1), b", "a b"),
    ("SELECT * FROM (VALUES (1, 'FROM x'), (2, 'y')) AS v(n, s) JOIN a ON true", "a"),
    ("TABLE a", "a"),
    ("SELECT x FROM a UNION TABLE b", "a b"),
    # Functions.
    ("SELECT * FROM generate_series(1, 10) AS n, a", "a"),
    ("SELECT * FROM json_each(?) j JOIN a ON j.value = a.id", "a"),
    ("SELECT * FROM unnest(%s, %s) WITH ORDINALITY AS t(x, y, n)", ""),
    ("SELECT * FROM post_words('sea')", "post_words"),
    ("SELECT EXTRACT(YEAR FROM a.day), extract(epoch from (select x from b)) FROM a", "a b"),
    ("SELECT SUBSTRING(x FROM 2 FOR 3), SUBSTRING((x || y) FROM 2) FROM a", "a"),
    ("SELECT SUBSTRING(REPLACE(x, 'a', 'b') FROM 2) FROM a", "a"),
    ("SELECT TRIM(BOTH 'x' FROM y), TRIM(LEADING FROM y), OVERLAY(x PLACING y FROM 2) FROM a", "a"),
    ("SELECT x IS DISTINCT FROM y, x IS NOT DISTINCT FROM z, q FROM a", "a"),
    ("SELECT DISTINCT ON (x, y) x FROM a", "a"),
    ("SELECT DISTINCT FROM a", "a"),
    (
        "SELECT count(*) FILTER (WHERE x > 1) OVER w FROM a WINDOW w AS (PARTITION BY y), v AS ()",
        "a",
    ),
    ("SELECT string_agg(x, ',' ORDER BY y), REPLACE(x, 'y', 'z') FROM a GROUP BY x, y", "a"),
    # Clauses after the tables, whose commas list no tables.
    ("SELECT * FROM a WHERE x = 1 ORDER BY y, z", "a"),
    ("SELECT * FROM a GROUP BY y, z HAVING x, w", "a"),
    ("SELECT * FROM a LIMIT 5, 10", "a"),
    ("SELECT * FROM a FOR UPDATE OF a, b SKIP LOCKED", "a"),
    ("SELECT * FROM a FOR NO KEY UPDATE", "a"),
    ("SELECT * FROM a FOR SHARE OF a, b", "a"),
    ("SELECT x INTO new FROM a", "a"),
    # Words that are names.
    ('SELECT "from", a."join" FROM "order" o JOIN "user" ON "where" = "select"', "order user"),
    ("SELECT `from` FROM `order`, [group by], [dbo].[user]", "order|user|group by"),
    ('SELECT x AS from, y AS join, z AS "where" FROM a AS limit, b AS values, c', "a b c"),
    ("SELECT * FROM a offset, b", "a b"),
    ("SELECT a.from, a.select, a.with FROM a", "a"),
    ('SELECT * FROM public.post, "My Schema"."Post 2", db..note', "post|post 2|note"),
    ('SELECT * FROM "a""b", `c``d`, "e.f"', 'a"b|c`d|e.f'),
    ("SELECT * FROM 'post'", "post"),
    ("SELECT * FROM Überschrift, таблица, 表, t$1, _x", "überschrift|таблица|表|t$1|_x"),
    # Text that is none.
    ("SELECT 'a FROM b', 'it''s FROM c', 'JOIN d' FROM post", "post"),
    ("SELECT E'it\\'s FROM b', e'\\\\' FROM post", "post"),
    ("SELECT $$ it's FROM b $$, $x$ $$ FROM c $$ $x$, $1 FROM post", "post"),
    ("SELECT 1 -- FROM b, it's\nFROM post -- JOIN c", "post"),
    ("SELECT /* FROM b, it's */ 1 FROM /**/ post /* , c */ /***/", "post"),
    ("SELECT 1 FROM/*x*/post--\n, author", "post author"),
    ("SELECT x LIKE '%%FROM y%%', x %% 2, x LIKE %s ESCAPE '\\' FROM post", "post"),
    ("SELECT x LIKE REPLACE(REPLACE(y, '\\', '\\\\'), '_', '\\_') ESCAPE '\\' FROM post", "post"),
    ("SELECT x::text, x::varchar(10)[], y::timestamp with time zone FROM post", "post"),
    ("SELECT d ? 'a', d ?| array['b'], d ->> 'c', d #>> '{e,f}', d @> %s FROM post", "post"),
    ("SELECT m[1:2], m[a], m[1][2], ARRAY[[1, x], [y, 2]], '{}'::int[] FROM post", "post"),
    ("SELECT 'C:\\\\', x FROM post", "post"),
    # CTEs are no tables, but a table of that name may be read before.
    (
        "WITH x AS (SELECT * FROM a), y (n) AS MATERIALIZED (SELECT * FROM x) SELECT * FROM y, b",
        "a b",
    ),
    ("WITH a AS (SELECT * FROM a) SELECT * FROM a", "a"),
    ("WITH RECURSIVE x(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x, a) SELECT * FROM x", "a"),
    ("WITH x AS NOT MATERIALIZED (SELECT 1) SELECT * FROM public.x", "x"),
    ("SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) AS y JOIN x ON true", "x"),
    ("WITH update AS (SELECT * FROM a), delete AS (SELECT 1) SELECT * FROM update, delete", "a"),
    (
        "WITH RECURSIVE t AS (SELECT * FROM a) SEARCH DEPTH FIRST BY x, b SET o SELECT * FROM t, b",
        "a b",
    ),
    # Statements that run another, or several.
    ("EXPLAIN SELECT * FROM a", ""),
    ("EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM a", "a"),
    ("SELECT * FROM a; SELECT * FROM b;", "a b"),
    ("SET x = 1; SELECT * FROM a", "a"),
    ("COPY a (x, y) TO STDOUT", "a"),
    ("COPY (SELECT * FROM a) TO STDOUT", "a"),
]


@pytest.mark.parametrize(("sql", "tables"), READS)
def test_a_select_reads_the_tables_that_it_names(sql: str, tables: str) -> None:
    read = read_statement(sql)

    assert (read.reads, read.writes, read.is_understood) == (_names(tables), (), True)


def _names(tables: str) -> frozenset[str]:
    return frozenset(tables.split("|") if "|" in tables else tables.split())


# --- (text, tables written and how, tables read) --------------------------------------------------

WRITES = [
    ("INSERT INTO post (a, b) VALUES (?, ?), (?, ?)", "post:i", ""),
    ('INSERT INTO "post" DEFAULT VALUES RETURNING "id", "x"', "post:i", ""),
    ("insert post set a = 1, b = 2", "post:i", ""),
    ("INSERT OR IGNORE INTO post VALUES (1)", "post:i", ""),
    ("INSERT OR REPLACE INTO post VALUES (1)", "post:iud", ""),
    ("REPLACE INTO post (a) VALUES (1)", "post:iud", ""),
    ("REPLACE LOW_PRIORITY post VALUES (1)", "post:iud", ""),
    ("INSERT LOW_PRIORITY IGNORE INTO post VALUES (1)", "post:i", ""),
    ("INSERT INTO post (a) SELECT x FROM draft, tag", "post:i", "draft tag"),
    ("INSERT INTO post (a) (SELECT x FROM draft)", "post:i", "draft"),
    ("INSERT INTO post TABLE draft", "post:i", "draft"),
    ("INSERT INTO post WITH x AS (SELECT * FROM draft) SELECT * FROM x", "post:i", "draft"),
    ("INSERT INTO post (n) VALUES ((SELECT max(n) FROM draft))", "post:i", "draft"),
    ("INSERT INTO post SELECT * FROM UNNEST((%s)::integer[], (%s)::text[])", "post:i", ""),
    ("INSERT INTO post (a) VALUES (1) ON CONFLICT DO NOTHING", "post:i", ""),
    (
        "INSERT INTO post AS p (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2, b = 3",
        "post:iu",
        "",
    ),
    ("INSERT INTO post VALUES (1) ON DUPLICATE KEY UPDATE a = VALUES(a), b = 2", "post:iu", ""),
    ("INSERT INTO post SELECT a FROM x ON DUPLICATE KEY UPDATE a = 1, b = 2", "post:iu", "x"),
    ("INSERT INTO only (a) VALUES (1)", "only:i", ""),
    ("UPDATE post SET a = 1, b = 2", "post:u", ""),
    (
        "UPDATE public.post AS p SET a = 1 FROM author a, tag WHERE p.x = a.y",
        "post:u",
        "author tag",
    ),
    (
        "UPDATE post SET a = (SELECT x FROM draft) WHERE b IN (SELECT y FROM tag)",
        "post:u",
        "draft tag",
    ),
    ("UPDATE post SET (a, b) = (SELECT x, y FROM draft)", "post:u", "draft"),
    ("UPDATE ONLY post SET a = 1", "post:u", ""),
    ("UPDATE OR REPLACE post SET a = 1", "post:ud", ""),
    ("UPDATE IGNORE post SET a = 1", "post:u", ""),
    ("UPDATE ignore SET a = 1", "ignore:u", ""),
    ("UPDATE post p JOIN author a USING (x) SET p.a = a.b, a.c = 1", "post:u author:u", "author"),
    ("UPDATE post, author SET post.a = 1", "post:u author:u", "author"),
    ("UPDATE p SET a = 1 FROM post AS p", "p:u post:u", "post"),
    ("DELETE FROM post", "post:d", ""),
    (
        "DELETE FROM ONLY post AS p USING author a JOIN tag USING (id) WHERE x",
        "post:d",
        "author tag",
    ),
    ("DELETE FROM post WHERE id IN (SELECT x FROM draft)", "post:d", "draft"),
    ("DELETE QUICK FROM post ORDER BY a, b LIMIT 5", "post:d", ""),
    ("DELETE p FROM post p JOIN author a ON p.x = a.y", "p:d post:d", "post author"),
    ("DELETE `post` FROM `post` JOIN `author` ON 1", "post:d", "post author"),
    ("DELETE post.*, author FROM post JOIN author", "post:d author:d", "post author"),
    ("DELETE FROM a, b USING a JOIN b USING (x)", "a:d b:d", "a b"),
    ('TRUNCATE a, ONLY b, "c" RESTART IDENTITY', "a:d b:d c:d", ""),
    ("TRUNCATE TABLE a", "a:d", ""),
    (
        "MERGE INTO post AS p USING draft d ON 1 WHEN MATCHED THEN UPDATE SET a = 1, b = 2",
        "post:iud",
        "draft",
    ),
    (
        "MERGE INTO post USING (SELECT * FROM draft) d ON 1 = 1 WHEN MATCHED THEN DELETE",
        "post:iud",
        "draft",
    ),
    ("MERGE INTO a USING b ON 1 WHEN NOT MATCHED THEN INSERT (c, d) VALUES (1, 2)", "a:iud", "b"),
    ("COPY post (a, b) FROM STDIN", "post:i", ""),
    ("COPY post FROM '/x' WITH (FORMAT csv)", "post:i", ""),
    (
        "WITH x AS (DELETE FROM post RETURNING *) INSERT INTO log SELECT * FROM x",
        "post:d log:i",
        "",
    ),
    (
        "WITH x AS (INSERT INTO a VALUES (1)), y AS (UPDATE b SET c = 1) SELECT 1 FROM x, y, d",
        "a:i b:u",
        "d",
    ),
    ("WITH x AS (SELECT * FROM a) UPDATE b SET c = 1 FROM x", "b:u", "a"),
    ("WITH x AS (SELECT * FROM a) DELETE FROM b USING x", "b:d", "a"),
    ("WITH post AS (SELECT * FROM post) INSERT INTO post SELECT * FROM post", "post:i", "post"),
    ("EXPLAIN ANALYZE DELETE FROM post", "post:d", ""),
    ("ANALYZE UPDATE post SET a = 1", "post:u", ""),
    (
        "BEGIN; UPDATE a SET x = 1; DELETE FROM a; INSERT INTO b SELECT * FROM c; COMMIT",
        "a:ud b:i",
        "c",
    ),
]


@pytest.mark.parametrize(("sql", "writes", "reads"), WRITES)
def test_each_table_that_is_written_is_named(sql: str, writes: str, reads: str) -> None:
    written = read_statement(sql)

    assert written.is_understood
    assert written.reads == _names(reads)
    assert written.writes == statement(writes=writes).writes


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "BEGIN IMMEDIATE",
        "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "START TRANSACTION",
        "COMMIT",
        "COMMIT PREPARED 'x'",
        "ROLLBACK TO SAVEPOINT x",
        "SAVEPOINT x",
        "RELEASE SAVEPOINT x",
        "SET LOCAL statement_timeout = 5",
        "SHOW TABLES FROM x",
        "PRAGMA table_info(post)",
        "EXPLAIN DELETE FROM post",
        "EXPLAIN QUERY PLAN SELECT * FROM post",
        "CREATE TABLE post (a int, b int DEFAULT (1))",
        "CREATE TABLE post AS SELECT * FROM draft",
        "CREATE VIEW x AS SELECT * FROM post",
        "ALTER TABLE post ADD COLUMN a int",
        "DROP TABLE IF EXISTS post CASCADE",
        "ANALYZE post",
        "VACUUM",
        "LOCK TABLE post IN EXCLUSIVE MODE",
        "NOTIFY x",
    ],
)
def test_what_neither_reads_nor_changes_rows_is_understood(sql: str) -> None:
    assert read_statement(sql) == statement()


@pytest.mark.parametrize(
    "sql",
    [
        "CALL publish(1)",
        "DO $$ BEGIN DELETE FROM post; END $$",
        "EXECUTE delete_post(1)",
        "EXEC sp_rename",
        "FETCH ALL FROM c",
        "BEGIN DELETE FROM post; END",
        "SET STATEMENT max_statement_time = 1 FOR DELETE FROM post",
        "TRUNCATE post CASCADE",  # also what refers to it
        "WITH x AS (SELECT * FROM a) UPDATE x SET a = 1",
        "UPDATE (SELECT * FROM a) SET x = 1",
        "DELETE TOP (5) FROM post",
        "INSERT ALL INTO a VALUES (1) INTO b VALUES (2) SELECT * FROM c",
        "nonsense",
        "(nonsense)",
        "SELECT 1; nonsense",
        # What is not balanced or does not end.
        "SELECT (1",
        "SELECT 1)",
        "SELECT (1]",
        "SELECT 'a",
        'SELECT "a',
        "SELECT `a",
        "SELECT $$ a",
        "SELECT $x$ a $$",
        "SELECT $$$",
        "SELECT E'a\\'",
        "SELECT 1 /* a",
        # What databases disagree on.
        "SELECT 1 /* a /* b */ FROM c */",
        "SELECT 1 /*! FROM c */",
        "SELECT 1--1 FROM a",
        "SELECT 'it\\'s', ' FROM a'",
        "SELECT '\\', ' FROM a'",
        'SELECT "it\\"s", " FROM a"',
        "SELECT 1 # FROM a",
        'SELECT * FROM U&"d\\0061t"',
        "SELECT * FROM [2020 data]",
        # Where a table should stand.
        "SELECT * FROM",
        "SELECT * FROM %s",
        "SELECT * FROM {table}",
        "SELECT * FROM a JOIN WHERE b",
        "SELECT * FROM a,",
        "SELECT * FROM a/**/.b",
        "SELECT * FROM @t",
        "SELECT * FROM 5",
    ],
)
def test_what_may_do_more_than_it_says_is_not_understood(sql: str) -> None:
    doubtful = read_statement(sql)

    assert not doubtful.is_understood
    assert not doubtful.lookups


# --- (text, lookups) ------------------------------------------------------------------------------

LOOKUPS = [
    # Each style of parameters.
    ("SELECT * FROM post WHERE post.id = ?", "post.id=0"),
    ("SELECT * FROM post WHERE post.id = %s", "post.id=0"),
    ("SELECT * FROM post WHERE post.id = $1", "post.id=0"),
    ("SELECT * FROM post WHERE post.id = ?2 AND a = ?1", "post.id=1 post.a=0"),
    ("SELECT * FROM post WHERE post.id = %(id_1)s", "post.id=id_1"),
    ("SELECT * FROM post WHERE post.id = :id", "post.id=id"),
    # Positions count all parameters.
    ("SELECT ?, f(?) FROM post WHERE a > ? AND id = ? LIMIT ?", "post.id=3"),
    ("SELECT %s, x %% 2, '%%s' FROM post WHERE a IN (%s, %s) AND id = %s", "post.a=1,2 post.id=3"),
    ("SELECT $1 FROM post WHERE a > $3 AND id = $2", "post.id=1"),
    ("SELECT a ? 'x', b ?| c FROM post WHERE d ? %s AND id = %s", "post.id=1"),
    ("SELECT '?' /* ? */ FROM post -- ?\nWHERE id = ?", "post.id=0"),
    ("SELECT strftime('%s', a) FROM post WHERE id = ?", "post.id=0"),
    # The driver takes the first for a parameter too.
    ("SELECT '%s' FROM post WHERE id = %s", ""),
    ("SELECT 1 /* %s */ FROM post WHERE id = %s", ""),
    ("SELECT %b FROM post WHERE id = %s", ""),
    ("SELECT a %s FROM post WHERE id = ?", ""),
    ("SELECT %(a)s FROM post WHERE id = %s", ""),
    ("SELECT a[1:n] FROM post WHERE id = %s", ""),
    # Forms.
    ("SELECT * FROM post WHERE ? = post.id", "post.id=0"),
    ("SELECT * FROM post WHERE id == ?", "post.id=0"),
    ("SELECT * FROM post WHERE id IN (?)", "post.id=0"),
    ("SELECT * FROM post WHERE id IN (?, ?, ?)", "post.id=0,1,2"),
    ("SELECT * FROM post WHERE id IN (%(a_1)s, %(a_2)s)", "post.id=a_1,a_2"),
    ("SELECT * FROM post WHERE id IN ($2::INTEGER, $1::INTEGER)", "post.id=1,0"),
    ("SELECT * FROM post WHERE id = $1::UUID", "post.id=0"),
    (
        "SELECT * FROM post WHERE id = %(id)s::VARCHAR(10) AND a = %(a)s::NUMERIC(10, 2)",
        "post.id=id post.a=a",
    ),
    ("SELECT * FROM post WHERE a = $1::TIMESTAMP WITH TIME ZONE", "post.a=0"),
    ('SELECT * FROM "Post" WHERE "Post"."Id" = %s LIMIT 21', "post.id=0"),
    ("SELECT * FROM [post] WHERE [post].[id] = ?", "post.id=0"),
    ("SELECT * FROM public.post WHERE public.post.id = ?", "post.id=0"),
    ("SELECT * FROM post WHERE (id = ?)", "post.id=0"),
    ("SELECT * FROM post WHERE (((id = ?) AND (a = ? AND b = ?)))", "post.id=0 post.a=1 post.b=2"),
    ("SELECT * FROM post WHERE (a > 1 OR b) AND (id = ? AND c) AND NOT d", "post.id=0"),
    ("SELECT * FROM post WHERE a BETWEEN ? AND ? AND id = ?", "post.id=2"),
    ("SELECT * FROM post WHERE CASE WHEN a THEN b OR c END AND id = ?", "post.id=0"),
    ("SELECT * FROM post WHERE (f(end) OR a) AND id = ?", "post.id=0"),
    # Not these.
    ("SELECT * FROM post WHERE id = 5", ""),
    ("SELECT * FROM post WHERE id = a", ""),
    ("SELECT * FROM post WHERE id > ?", ""),
    ("SELECT * FROM post WHERE id != ? AND a <> ? AND b <= ?", ""),
    ("SELECT * FROM post WHERE id NOT IN (?)", ""),
    ("SELECT * FROM post WHERE id IN (?, 5)", ""),
    ("SELECT * FROM post WHERE id IN (?, NULL)", ""),
    ("SELECT * FROM post WHERE id IN (SELECT ?)", ""),
    ("SELECT * FROM post WHERE id = ANY(?)", ""),
    ("SELECT * FROM post WHERE id = ? + 1 AND a = ? || 'x'", ""),
    ("SELECT * FROM post WHERE lower(a) = ? AND (a) = ? AND a + b = ?", ""),
    ("SELECT * FROM post WHERE id = ? COLLATE nocase", ""),
    ("SELECT * FROM post WHERE true = ? AND NULL = ?", ""),
    # Not within these.
    ("SELECT * FROM post WHERE id = ? OR a = ?", ""),
    ("SELECT * FROM post WHERE id = ? AND a = ? OR b = ?", ""),
    ("SELECT * FROM post WHERE a OR id = ? AND b = ?", ""),
    ("SELECT * FROM post WHERE (id = ? OR a) AND b", ""),
    ("SELECT * FROM post WHERE (id = ? AND (a OR b = ?)) OR c", ""),
    ("SELECT * FROM post WHERE id = ? AND offset OR b", ""),
    ("SELECT * FROM post WHERE id = ? XOR a", ""),
    ("SELECT * FROM post WHERE NOT id = ? AND NOT (a = ?)", ""),
    ("SELECT * FROM post WHERE (id = ?) IS NOT TRUE", ""),
    ("SELECT * FROM post WHERE (id = ?) = ?", ""),
    ("SELECT * FROM post WHERE (a, id = ?) = (b, c)", ""),
    ("SELECT * FROM post WHERE a BETWEEN ? AND id = ?", ""),
    ("SELECT * FROM post WHERE a BETWEEN b BETWEEN 1 AND c AND id = ?", ""),
    ("SELECT * FROM post WHERE a BETWEEN (b BETWEEN 1 AND 2) AND id = ?", ""),
    ("SELECT * FROM post WHERE CASE WHEN a AND id = ? AND b THEN c END", ""),
    ("SELECT * FROM post WHERE coalesce(a AND id = ?, b)", ""),
    ("SELECT * FROM post WHERE tags && id = ?", ""),
    ("SELECT count(*) FILTER (WHERE id = ?) FROM post", ""),
    ("SELECT * FROM post GROUP BY a HAVING a AND id = ?", ""),
    ("SELECT * FROM post WHERE a GROUP BY b HAVING c AND id = ?", ""),
    # Whatever follows depends on those rows alone.
    ("SELECT count(*) FROM post WHERE id = ?", "post.id=0"),
    ("SELECT DISTINCT a FROM post WHERE id = ? GROUP BY a HAVING b = ?", "post.id=0"),
    ("SELECT a, row_number() OVER (ORDER BY b) FROM post WHERE id = ? ORDER BY a", "post.id=0"),
    ("SELECT * FROM post WHERE id = ? LIMIT ? OFFSET ?", "post.id=0"),
    ("SELECT * FROM post WHERE id = ? FOR UPDATE;", "post.id=0"),
    # Several tables.
    ("SELECT * FROM post AS p WHERE p.id = ? AND id = ?", "post.id=0 post.id=1"),
    (
        "SELECT * FROM post p JOIN author a ON p.x = a.y WHERE p.id = ? AND a.z = ?",
        "post.id=0 author.z=1",
    ),
    ("SELECT * FROM post p LEFT JOIN author a ON p.x = a.y WHERE p.id = ?", "post.id=0"),
    ("SELECT * FROM post p LEFT JOIN author a ON p.x = a.y AND a.id = ?", ""),
    ("SELECT * FROM post, author WHERE author.id = ?", "author.id=0"),
    ("SELECT * FROM post, author WHERE id = ?", ""),
    ("SELECT * FROM post, generate_series(1, 2) WHERE id = ?", ""),
    ("SELECT * FROM generate_series(1, 2) AS g WHERE g = ?", ""),
    ("SELECT * FROM post p, post q WHERE p.id = ? AND q.id = ?", ""),
    ("SELECT * FROM a.post, b.post WHERE a.post.id = ?", ""),
    ('SELECT * FROM post AS "A", author AS "a" WHERE "A".id = ?', ""),
    ("SELECT * FROM post AS p (x, y) WHERE p.x = ?", ""),
    ("SELECT * FROM post p WHERE author.id = ?", ""),
    # More than one SELECT.
    ("SELECT * FROM post WHERE id = ? UNION SELECT * FROM post", ""),
    ("SELECT * FROM post WHERE id = ? UNION TABLE post", ""),
    ("SELECT (SELECT count(*) FROM post) FROM post WHERE id = ?", ""),
    ("SELECT * FROM (SELECT * FROM post) AS p WHERE p.id = ?", ""),
    ("SELECT * FROM (VALUES (1)) AS p WHERE p.id = ?", ""),
    ("WITH p AS (SELECT 1) SELECT * FROM post WHERE id = ?", ""),
    ("SELECT * FROM post WHERE id = ?; SELECT * FROM post", ""),
    ("SELECT (SELECT max(a) FROM author) FROM post WHERE post.id = ?", ""),
    ("INSERT INTO log SELECT * FROM post WHERE post.id = ?", ""),
    # Writes.
    ("UPDATE post SET a = ? WHERE post.id = ?", "post.id=1"),
    ("UPDATE post SET a = ?, b = b + 1 WHERE id = ? RETURNING a", "post.id=1"),
    ("UPDATE post AS p SET a = ? WHERE p.id IN (?, ?) AND c = ?", "post.id=1,2 post.c=3"),
    (
        "UPDATE post SET a = CASE WHEN (post.id = ?) THEN ? END, b = f(id, 1) WHERE id IN (?, ?)",
        "post.id=2,3",
    ),
    ("DELETE FROM post WHERE post.id = ?", "post.id=0"),
    ('DELETE FROM "post" WHERE "post"."id" IN (%s, %s)', "post.id=0,1"),
    # The row gets another id, so the value does not tell all that changes.
    ("UPDATE post SET id = ? WHERE id = ? AND a = ?", "post.a=2"),
    ('UPDATE post SET (x, "id") = (?, ?) WHERE id = ?', ""),
    ("UPDATE post SET x = 1, (y, id) = (?, ?) WHERE id = ?", ""),
    ("UPDATE post SET a = ? WHERE id = ? OR b", ""),
    ("UPDATE OR REPLACE post SET a = ? WHERE id = ?", ""),
    ("UPDATE post SET a = x.b FROM x WHERE post.id = ?", ""),
    ("UPDATE post SET a = (SELECT 1) WHERE id = ?", ""),
    ("DELETE FROM post USING author WHERE post.id = ?", ""),
    ("INSERT INTO post VALUES (1) ON CONFLICT (a) DO UPDATE SET b = 1 WHERE post.id = ?", ""),
]


@pytest.mark.parametrize(("sql", "lookups"), LOOKUPS)
def test_a_lookup_is_what_holds_for_each_row(sql: str, lookups: str) -> None:
    assert read_statement(sql).lookups == statement(lookups=lookups).lookups


# --- statements whose tables are known ------------------------------------------------------------

NOISE = st.sampled_from(
    [
        " ",
        "\n",
        " -- FROM hidden, it's\n",
        " /* JOIN hidden ( */ ",
        " /* ' \" $$ */ ",
    ]
)
HARMLESS = st.sampled_from(
    [
        "'FROM hidden'",
        "'it''s FROM hidden, ( '",
        "E'\\' FROM hidden'",
        "$$ ' FROM hidden $$",
        "$q$ $$ JOIN hidden $q$",
        "'%%' || 'JOIN hidden'",
        "x -> '(FROM hidden'",
        '"FROM hidden"',
        "EXTRACT(YEAR FROM x)",
        "(x IS DISTINCT FROM y)",
        "ARRAY[x, y]::text[]",
        "CASE WHEN x THEN y ELSE z END",
        "%s",
    ]
)
NAMES = st.sampled_from(["post", "author", '"order"', "tag_1", "public.note", '"My table"', "été"])
ALIASES = st.sampled_from(["", " AS p", " q", ' AS "from"', ' "select"'])


@dataclass
class Known:
    """SQL, and the tables that it reads."""

    sql: str
    tables: set[str]


@st.composite
def selects(draw: st.DrawFn, depth: int = 3) -> Known:
    parts = ["SELECT", draw(HARMLESS), ", x, ", draw(HARMLESS)]
    tables: set[str] = set()

    def add(before: str, known: Known, after: str = "") -> None:
        parts.extend((before, known.sql, after))
        tables.update(known.tables)

    if depth and draw(st.booleans()):
        add(", (", draw(selects(depth - 1)), ")")
    add("FROM", draw(sources(depth)))
    for word in draw(
        st.lists(st.sampled_from([",", "JOIN", "LEFT OUTER JOIN", ", LATERAL"]), max_size=2)
    ):
        add(word, draw(sources(depth)), "ON (x = y AND z)" if "JOIN" in word else "")
    if draw(st.booleans()):
        parts.append(f"WHERE {draw(HARMLESS)} = x")
    if depth and draw(st.booleans()):
        add("GROUP BY a, b HAVING EXISTS (", draw(selects(depth - 1)), ")")
    parts.append(draw(st.sampled_from(["", "ORDER BY a, b", "LIMIT 5", "GROUP BY c, d"])))
    if depth and draw(st.booleans()):
        add(draw(st.sampled_from(["UNION ALL", "EXCEPT"])), draw(selects(depth - 1)))
    if depth and draw(st.booleans()):
        body = draw(selects(depth - 1))
        parts[:0] = ["WITH cte (x) AS (", body.sql, ")"]
        tables |= body.tables
    noise = draw(st.lists(NOISE, min_size=len(parts), max_size=len(parts)))
    return Known("".join(a + b for a, b in zip(parts, noise, strict=True)), tables)


@st.composite
def sources(draw: st.DrawFn, depth: int) -> Known:
    kind = draw(st.sampled_from(["table", "table", "function", "select", "group"]))
    if kind == "function":
        return Known("unnest(ARRAY[a, b]) AS f(x, y)", set())
    if kind == "select" and depth:
        inner = draw(selects(depth - 1))
        return Known(f"({inner.sql}) AS s (x, y)", inner.tables)
    if kind == "group" and depth:
        one, other = draw(sources(depth - 1)), draw(sources(depth - 1))
        return Known(f"({one.sql} CROSS JOIN {other.sql})", one.tables | other.tables)
    name = draw(NAMES)
    return Known(name + draw(ALIASES), {name.rpartition(".")[2].strip('"').lower()})


WRITERS: dict[str, frozenset[Operation]] = {
    "INSERT INTO target (a, b) {}": frozenset({"insert"}),
    "UPDATE target SET a = ({}), b = 1": frozenset({"update"}),
    "DELETE FROM target WHERE a IN ({})": frozenset({"delete"}),
    "WITH w AS ({}) DELETE FROM target USING w": frozenset({"delete"}),
    "WITH w AS (UPDATE target SET a = 1 RETURNING b) {}": frozenset({"update"}),
}


@given(selects())
def test_all_tables_are_found_and_nothing_else(known: Known) -> None:
    found = read_statement(known.sql)

    assert (set(found.reads), found.writes, found.is_understood) == (known.tables, (), True)


@given(selects(), st.sampled_from(sorted(WRITERS)))
def test_a_written_table_is_found_beside_all_that_are_read(known: Known, writer: str) -> None:
    found = read_statement(writer.format(known.sql))

    assert found.is_understood
    assert found.reads == known.tables
    assert found.writes == (Write("target", WRITERS[writer]),)


# --- what a lookup means, on a real database ------------------------------------------------------

COLUMNS = ("id", "x", "y")
JOINS = ["JOIN", "LEFT JOIN", "CROSS JOIN", ","]
if sqlite3.sqlite_version_info >= (3, 39):
    JOINS += ["RIGHT JOIN", "FULL JOIN"]
# {} is a column, [] a condition.
EQUALITIES = ["{} = ?", "? = {}", "{} == ?", "{} IN (?, ?)", "({} = ?)", "{} IN (?)"]
OTHERS = [
    *("{} > ?", "{} IS NOT NULL", "{} IN (?, 1)", "{} = ? + 1", "coalesce({}, 1) = ?", "{} = {}"),
    *("{} BETWEEN ? AND {} = ?", "{} = ? = {}", "{} = ? || ''", "{} NOT IN (?)", "-{} = ?"),
    "{} BETWEEN {} BETWEEN ? AND ? AND {} = ?",
]
COMBINATIONS = [
    *("([])", "([] AND [])", "[] AND []", "[] AND []", "[] OR []", "([]) AND ([] OR [])", "NOT []"),
    *(
        "([]) IS []",
        "CASE WHEN [] AND [] THEN 1 END",
        "coalesce([], 0)",
        "([]) BETWEEN ([]) AND {} = ?",
    ),
]


def condition(random: Random, columns: Sequence[str], depth: int = 3) -> str:
    """Make a condition, with parentheses where they matter and where they do not."""
    form = random.choice(random.choice([EQUALITIES, EQUALITIES, OTHERS]))
    if depth and random.random() < 0.6:
        form = random.choice(COMBINATIONS)
        form = re.sub(r"\[\]", lambda _: condition(random, columns, depth - 1), form)
    return re.sub(r"\{\}", lambda _: random.choice(columns), form)


def query(random: Random) -> str:
    """Make a SELECT from one to three of two tables."""
    sources = random.sample(["a", "b", "a AS p", "b q"], random.randint(1, 3))
    columns: list[str] = []
    tables = ""
    for source in sources:
        columns += [f"{source.split()[-1]}.{column}" for column in COLUMNS]
        join = random.choice(JOINS) if tables else ""
        on = f"ON {condition(random, columns)}" if join.endswith("JOIN") else ""
        tables += f" {join} {source} {on}"
    columns += COLUMNS if len(sources) == 1 else ()
    what = random.choice(["*", "count(*), max(?)", f"?, {columns[0]}, {columns[-1]}"])
    end = random.choice(["", "ORDER BY 1", "GROUP BY ? HAVING count(*) > ? OR ?", "LIMIT -1"])
    return f"SELECT {what} FROM {tables} WHERE {condition(random, columns)} {end}"


def change(random: Random) -> str:
    """Make an UPDATE or DELETE of one table."""
    new = ["x = ?", "x = y + ?, y = id", "id = CASE WHEN x = ? THEN y END", "(x, id) = (y, ?)"]
    start = random.choice(["DELETE FROM a", f"UPDATE a SET {random.choice(new)}"])
    return f"{start} WHERE {condition(random, ['a.id', 'a.x', 'y'])}"


def rows(random: Random) -> list[tuple[int | None, ...]]:
    values = [None, 0, 1, 2, 3]
    return [tuple(random.choices(values, k=len(COLUMNS))) for _ in range(random.randint(0, 6))]


def fill(connection: sqlite3.Connection, table: str, rows: list[tuple[int | None, ...]]) -> None:
    connection.execute(f"DELETE FROM {table}")
    connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", rows)


def run(connection: sqlite3.Connection, sql: str, params: list[int]) -> list[str]:
    return sorted(map(repr, connection.execute(sql, params)))


def looks_up(lookup: Lookup, params: list[int], row: tuple[int | None, ...]) -> bool:
    return row[COLUMNS.index(lookup.column)] in [params[int(place)] for place in lookup.params]


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript("CREATE TABLE a (id, x, y); CREATE TABLE b (id, x, y)")
        yield connection


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_a_lookup_leaves_out_never_matter(
    seed: int, database: sqlite3.Connection
) -> None:
    random = Random(seed)
    count = 0
    for sql in (query(random) for _ in range(500)):
        for lookup in read_statement(sql).lookups:
            params = random.choices(range(4), k=sql.count("?"))
            old, new = rows(random), rows(random)
            looked_up = [row for row in old if looks_up(lookup, params, row)]
            others = [row for row in new if not looks_up(lookup, params, row)]
            fill(database, "a", rows(random))
            fill(database, "b", rows(random))
            fill(database, lookup.table, old)
            before = run(database, sql, params)
            fill(database, lookup.table, looked_up + others)
            count += 1

            assert run(database, sql, params) == before, sql

    assert count > 50


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_a_lookup_leaves_out_are_not_changed(
    seed: int, database: sqlite3.Connection
) -> None:
    random = Random(seed)
    count = 0
    for sql in (change(random) for _ in range(500)):
        for lookup in read_statement(sql).lookups:
            params = random.choices(range(4), k=sql.count("?"))
            fill(database, "a", rows(random))
            others = [
                row
                for row in database.execute("SELECT * FROM a")
                if not looks_up(lookup, params, row)
            ]
            database.execute(sql, params)
            count += 1

            assert others == [
                row
                for row in database.execute("SELECT * FROM a")
                if not looks_up(lookup, params, row)
            ], sql

    assert count > 50


# --- any text -------------------------------------------------------------------------------------

TEXTS = [sql for sql, *_ in (*READS, *WRITES, *LOOKUPS)]
TOKENS = sorted({token for sql in TEXTS for token in re.findall(r"\w+|\s+|[^\w\s]", sql)})


@given(st.text() | st.lists(st.sampled_from(TOKENS), max_size=40).map("".join))
def test_no_text_raises(sql: str) -> None:
    assert isinstance(read_statement(sql), Statement)


@given(st.sampled_from(TEXTS), st.sampled_from(TEXTS), st.data())
def test_what_is_torn_and_joined_anew_does_not_raise(
    one: str, other: str, data: st.DataObject
) -> None:
    head = one[: data.draw(st.integers(0, len(one)))]
    tail = other[data.draw(st.integers(0, len(other))) :]

    assert isinstance(read_statement(head + tail), Statement)


def test_a_long_text_is_read_whole() -> None:
    rows = ", ".join(["(%s, %s, NULL)"] * LONGEST_KEPT)

    assert read_statement(f"INSERT INTO a (x, y, z) VALUES {rows}") == statement(writes="a:i")


def test_no_repetition_of_the_tokenizer_gives_back_what_it_took() -> None:
    # So nothing is tried twice from one place. The lazy one ends at the text's end at the latest.
    endless = [operator for operator, most in _repetitions(_token()) if most is MAXREPEAT]

    assert Counter(endless)["MIN_REPEAT"] == 1
    assert set(endless) == {"POSSESSIVE_REPEAT", "MIN_REPEAT"}


def _repetitions(pattern: re.Pattern[str]) -> Iterator[tuple[str, object]]:
    trees: list[Any] = [parse(pattern.pattern, pattern.flags)]
    while trees:
        tree = trees.pop()
        match tree:
            case (operator, (_, most, _)) if str(operator).endswith("REPEAT"):
                yield str(operator), most
        if hasattr(tree, "__getitem__"):
            trees += tree


# It would take minutes, and the test's time would be over, if it took the square of the length.
@pytest.mark.parametrize(
    "piece",
    [
        *("'", '"', "`", "[", "[a", "(?", "(?,", "$a$", "$", "%(", "%(a", "E'", "/*", "/", "--"),
        *("-- \n", "a.", "a. ", " ", ".", "::", "?::", "?:: ", "E'''", "'\"", "\"'", "[a]", "a["),
        *("\\'", "'\\'", "E'\\'", "U&'", "/**/", "*/", "/*'*/", "a", "?", "%s, "),
    ],
)
def test_the_tokenizer_looks_at_each_character_a_few_times(piece: str) -> None:
    tokens = _tokenize("SELECT " + piece * (500_000 // len(piece)))

    assert tokens[0] == "SELECT"


@pytest.mark.parametrize("beginning", ["", "SELECT * FROM a WHERE ", "WITH RECURSIVE a AS (", "("])
@pytest.mark.parametrize(
    "piece",
    [
        *(
            "(",
            ")",
            "((",
            ";",
            "a;",
            "[",
            "CASE ",
            "a AND ",
            "(a AND ",
            "((a = ?) AND ",
            "a = ? AND ",
        ),
        *("(SELECT a FROM b, ", "WITH a AS (SELECT * FROM ", "SELECT a FROM a, ", "UPDATE a, "),
        *("a JOIN ", "EXPLAIN ", "INSERT INTO a SELECT ", "a AS ", "FROM a AS b, c AS b "),
        *("DELETE FROM a USING b AS c;", "a, ", "BEGIN ", "COPY ", "UPDATE ", "a AS (SELECT 1), "),
    ],
)
def test_the_scan_takes_steps_in_proportion_to_the_tokens(beginning: str, piece: str) -> None:
    steps = _steps(beginning + piece * 100)

    assert _steps(beginning + piece * 200) < 2.2 * steps


def _steps(sql: str) -> int:
    """Count the lines that run."""
    count = 0

    def trace(*_: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        _read(sql)
    finally:
        sys.settrace(before)
    return count
