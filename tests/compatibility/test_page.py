"""The matrix as it is written."""

from __future__ import annotations

from tests.compatibility.matrix import COLUMNS, PAIRS, Found, table
from tools.compatibility_page import PAGE, table_of, with_table


def found(outcome: str) -> Found:
    found = Found()
    for pair in PAIRS:
        for column in set(COLUMNS) - pair.lacks:
            found.note(pair, column, outcome)
    return found


def test_another_matrix_takes_the_place_of_the_pages() -> None:
    page = PAGE.read_text()
    changed = with_table(page, found("failed"))

    assert table_of(changed) == table(found("failed")) != table_of(page)
    assert changed.partition("<!-- written -->")[0] == page.partition("<!-- written -->")[0]
    assert changed.partition("<!-- /written -->")[2] == page.partition("<!-- /written -->")[2]


def test_a_row_says_what_was_found_and_what_there_is_not() -> None:
    rows = table(found("passed")).splitlines()

    assert "| Falcon | WSGI | hypercorn | yes | yes | yes | - |" in "\n".join(rows)
    assert len(rows) == 2 + len(PAIRS)


def test_what_is_missing_is_not_complete() -> None:
    partial = found("passed")
    del partial.outcomes[str(PAIRS[0])]["push"]

    assert found("passed").is_complete
    assert not partial.is_complete
