"""The harness would see a page that is stale, and one that is not tagged."""

from __future__ import annotations

import pytest

from tests.applications.harness import Reply, Report, Write, site, stranger, table, tables_read


def app(environ: dict[str, object], start_response: object) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])  # type: ignore[operator]
    return [VALUES[str(environ["PATH_INFO"])]]


VALUES: dict[str, bytes] = {}


def test_a_page_that_changes_and_is_not_purged_is_stale() -> None:
    VALUES.update({"/": b"1", "/other": b"1"})
    with site(auto_tags=True) as shown:
        shown.ask, shown.pages = stranger(shown.edge.wsgi(app)), ["/", "/other"]
        with shown.write("behind the edge's back"):
            VALUES["/"] = b"2"
        with shown.write("told"):
            VALUES["/other"] = b"2"
            shown.edge.submit("pages")
        unseen, told = shown.report().writes

    assert unseen.stale == ["/"]
    assert told.stale == []
    assert told.changed == ["/", "/other"]  # what is stale stays so until it is purged


def test_a_page_without_keys_of_a_table_that_it_reads_is_untagged() -> None:
    VALUES["/"] = b"1"
    with site(auto_tags=True) as shown:
        ask = stranger(shown.edge.wsgi(app))

        def ask_and_read(url: str) -> Reply:
            shown.note_statement("SELECT 1 FROM post")
            return ask(url)

        shown.ask, shown.pages = ask_and_read, ["/"]
        with shown.write("nothing"):
            pass

    assert shown.report().untagged == {"/": ["post"]}


@pytest.mark.parametrize(
    ("headers", "lifetime_s"),
    [
        ({"surrogate-control": "max-age=600, stale-if-error=9"}, 600),
        ({"cache-control": "max-age=0, s-maxage=5"}, 5),
        ({"surrogate-control": "no-store"}, 0),
        ({"cache-control": "private, no-store"}, 0),
        ({"cache-control": "max-age=0"}, 0),
        ({"surrogate-control": "max-age=600", "set-cookie": "a=b"}, 0),
        ({}, 60),
    ],
)
def test_a_cache_keeps_what_it_may(headers: dict[str, str], lifetime_s: int) -> None:
    assert Reply(200, headers, b"").lifetime_s == lifetime_s


def test_an_error_is_kept_only_if_it_says_so() -> None:
    assert Reply(500, {}, b"").lifetime_s == 0
    assert Reply(404, {}, b"").lifetime_s == 60


def test_a_statement_reads_the_tables_that_it_selects_from() -> None:
    joined = 'WITH best AS (SELECT * FROM vote) SELECT * FROM "post" JOIN best ON 1 WHERE id = %s'

    assert tables_read(joined) == {"post", "vote"}
    assert tables_read("UPDATE post SET title = ?") == frozenset()


def test_a_table_counts_what_was_purged_besides() -> None:
    report = Report([Write("edit", 4, ["/a"], ["/a", "/b"])], {}, [], [])

    assert "hit rate: 50.0% with scopes, 75.0% if exactly" in table("blog", {"scopes": report})
