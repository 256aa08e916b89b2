"""The ledger: what a transaction leaves behind, as SQL has it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.sources.ledger import Ledger


def test_a_commit_takes_everything_in_order() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.add([1, 2])
    ledger.savepoint("a")
    ledger.add([3])

    assert ledger.take() == [1, 2, 3]


def test_what_was_taken_is_gone() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.savepoint("a")
    ledger.add([1])
    ledger.take()
    ledger.rollback_to("a")
    ledger.add([2])

    assert ledger.take() == [2]


def test_rolling_back_to_a_savepoint_forgets_the_changes_since() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.add([1])
    ledger.savepoint("a")
    ledger.add([2])
    ledger.savepoint("b")
    ledger.add([3])
    ledger.rollback_to("a")

    assert ledger.take() == [1]


def test_a_savepoint_stays_open_after_rolling_back_to_it() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.savepoint("a")
    ledger.add([1])
    ledger.rollback_to("a")
    ledger.add([2])
    ledger.rollback_to("a")
    ledger.add([3])

    assert ledger.take() == [3]


def test_a_released_savepoint_is_rolled_back_with_the_one_around_it() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.add([1])
    ledger.savepoint("outer")
    ledger.savepoint("inner")
    ledger.add([2])
    ledger.release("inner")
    ledger.rollback_to("outer")

    assert ledger.take() == [1]


def test_releasing_a_savepoint_releases_those_within_it() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.savepoint("outer")
    ledger.savepoint("inner")
    ledger.add([1])
    ledger.release("outer")
    ledger.release("inner")

    assert ledger.take() == [1]


def test_of_two_savepoints_of_one_name_the_inner_one_is_meant() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.savepoint("a")
    ledger.add([1])
    ledger.savepoint("a")
    ledger.add([2])
    ledger.rollback_to("a")

    assert ledger.take() == [1]


def test_a_savepoint_older_than_the_ledger_takes_everything_with_it() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.add([1])
    ledger.rollback_to("before")

    assert ledger.take() == []


def test_releasing_a_savepoint_older_than_the_ledger_keeps_everything() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.add([1])
    ledger.release("before")

    assert ledger.take() == [1]


def test_what_is_rewritten_stays_in_its_savepoint() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.innermost.append(1)
    ledger.savepoint("a")
    ledger.innermost.append(2)
    ledger.rewrite(lambda entries: [10 * entry for entry in entries])
    ledger.innermost.append(3)

    assert ledger.entries() == [10, 20, 3]
    ledger.rollback_to("a")
    assert ledger.take() == [10]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "savepoint", "savepoint", "rollback_to", "release"]),
        st.sampled_from(["a", "b", "c"]),
    ),
    max_size=30,
)


@given(STEPS)
def test_the_ledger_agrees_with_a_real_database(steps: list[tuple[str, str]]) -> None:
    ledger: Ledger[int] = Ledger()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.execute("create table entries (n integer primary key)")
        database.execute("begin")
        for number, (step, name) in enumerate(steps):
            if step == "add":
                database.execute("insert into entries values (?)", (number,))
                ledger.add([number])
            elif database_does(database, step, name):
                getattr(ledger, step)(name)
        database.execute("commit")
        committed = [n for (n,) in database.execute("select n from entries order by n")]

    assert ledger.take() == committed


def database_does(database: sqlite3.Connection, step: str, name: str) -> bool:
    """Run the step, and say whether there was such a savepoint."""
    try:
        database.execute(f"{step.replace('_', ' ')} {name}")
    except sqlite3.OperationalError:
        return False
    return True
