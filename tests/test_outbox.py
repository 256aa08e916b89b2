"""The outbox: every committed change is delivered, whoever dies meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware import outbox as outbox_module
from grip_edge_middleware.changes import Change, Row, Rows
from grip_edge_middleware.changes import encode as encode_data
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.outbox import Outbox, OutboxRow, decode, encode
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.settings import Settings, TopicSettings
from grip_edge_middleware.stores.memory import MemoryStore
from grip_edge_middleware.topics import SITE_KEY

GRACE_S = 10.0


def topics(*names: str) -> tuple[TopicSettings, ...]:
    return Settings.parse({"topics": {name: {} for name in names}}, {}).topics


COUNTER, COUNTERS = TOPICS = topics("counter-{name}", "counters")
ROWS = Rows(Scopes(), throttle=1.0)


def change(name: str) -> Change:
    return Change(COUNTER.template.fill({"name": name}), COUNTER)


@dataclass
class Table:
    """A database's outbox, as several processes see it."""

    rows: dict[str, OutboxRow] = field(default_factory=dict)
    is_down: bool = False

    def insert(self, row: OutboxRow) -> None:
        self.rows[row.id] = row

    def take(self, now: int, until: int, limit: int) -> list[OutboxRow]:
        self._answer()
        due = [row for row in self.rows.values() if row.due < now][:limit]
        self.keep([row.id for row in due], until)
        return [self.rows[row.id] for row in due]

    def keep(self, ids: Sequence[str], until: int) -> None:
        self._answer()
        self.rows.update((i, replace(self.rows[i], due=until)) for i in ids if i in self.rows)

    def delete(self, ids: Sequence[str]) -> None:
        self._answer()
        for row_id in ids:
            self.rows.pop(row_id, None)

    def close(self) -> None:
        pass

    def after_fork(self) -> None:
        pass

    def _answer(self) -> None:
        if self.is_down:
            raise ConnectionError("no database")


@dataclass
class Process:
    """A process with a store and an outbox; its threads do not run, its clock is set."""

    table: Table
    topics: Sequence[TopicSettings] = TOPICS
    now: float = 1_000.0

    def __post_init__(self) -> None:
        self.store = MemoryStore(clock=lambda: self.now)
        self.metrics = Counts()
        self.outbox = Outbox(
            self.topics,
            submit=self.submit,
            submitted=self.store.submitted,
            delivered=self.store.delivered,
            finish=lambda: None,
            metrics=self.metrics,
            throttle_s=1.0,
            grace_s=GRACE_S,
            clock=lambda: self.now,
        )
        self.outbox._wake_up = lambda: None  # type: ignore[method-assign]
        self.outbox.add_table(self.table)

    def submit(self, changes: Sequence[Change]) -> None:
        self.store.add(changes, self.now)

    def commit(self, *changes: Change) -> None:
        row = self.outbox.row(changes)
        self.table.insert(row)
        self.store.add(changes, self.now)
        self.outbox.sent(self.table, row)

    def deliver(self) -> list[str]:
        claims = self.store.claim(self.now, limit=100_000)
        self.store.release(claims, self.now)
        return sorted(claim.topic.name for claim in claims)


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_row_is_deleted_when_its_changes_are_delivered(table: Table) -> None:
    process = Process(table)
    process.commit(change("a"), change("b"))
    process.outbox.turn()
    assert len(table.rows) == 1
    process.deliver()

    process.outbox.turn()

    assert table.rows == {}


def test_a_row_waits_for_the_last_of_its_changes(table: Table) -> None:
    process = Process(table)
    process.commit(change("a"))
    process.deliver()
    process.commit(change("a"), change("b"))
    [claim] = process.store.claim(process.now, limit=10)
    process.store.release([claim], process.now)

    process.outbox.turn()

    assert claim.topic.name == "counter-b"
    assert [row.changes.count("topic") for row in table.rows.values()] == [2]


def test_a_later_change_of_the_same_topic_does_not_hold_a_row_up(table: Table) -> None:
    process = Process(table)
    process.commit(change("a"))
    process.deliver()
    process.commit(change("a"))

    process.outbox.turn()

    assert len(table.rows) == 1


def test_what_a_dead_process_left_is_taken_after_the_grace(table: Table) -> None:
    dead, alive = Process(table), Process(table)
    dead.commit(change("a"))
    alive.outbox.turn()
    assert alive.deliver() == []

    alive.now += GRACE_S + 1
    alive.outbox.turn()

    assert alive.deliver() == ["counter-a"]
    alive.outbox.turn()
    assert table.rows == {}
    assert alive.metrics.snapshot()["outbox_taken"] == 1


def test_what_is_left_is_taken_by_one_process(table: Table) -> None:
    Process(table).commit(change("a"))
    others = [Process(table, now=1_100.0) for _ in range(4)]

    for other in others:
        other.outbox.turn()

    assert [other.deliver() for other in others] == [["counter-a"], [], [], []]


def test_what_is_on_its_way_is_not_taken_by_others(table: Table) -> None:
    slow, other = Process(table), Process(table)
    slow.commit(change("a"))

    for _ in range(20):
        slow.now = other.now = slow.now + GRACE_S / 4
        slow.outbox.turn()
        other.outbox.turn()

    assert other.deliver() == []
    assert slow.metrics.snapshot().get("outbox_taken") is None


def test_all_that_is_left_is_taken_however_much_it_is(table: Table) -> None:
    dead, alive = Process(table), Process(table, now=1_100.0)
    names = [f"n{number}" for number in range(2 * outbox_module.BATCH_SIZE + 1)]
    for name in names:
        dead.commit(change(name))

    alive.outbox.turn()

    assert len(alive.deliver()) == len(names)
    alive.outbox.turn()
    assert table.rows == {}


def test_a_process_has_a_bounded_number_of_rows_on_their_way(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "MAX_ROWS", 3)
    process = Process(table)
    for name in "abcde":
        process.commit(change(name))
    process.deliver()
    process.outbox.turn()
    assert len(table.rows) == 2

    process.now += 2 * GRACE_S
    process.outbox.turn()

    assert process.deliver() == ["counter-d", "counter-e"]
    process.outbox.turn()
    assert table.rows == {}


def test_a_database_that_does_not_answer_is_asked_again(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    Process(table).commit(change("a"))
    process = Process(table, now=1_100.0)
    table.is_down = True
    process.outbox.turn()
    process.now += GRACE_S
    process.outbox.turn()
    assert caplog.text.count("no database") == 1
    table.is_down = False

    process.now += GRACE_S
    process.outbox.turn()

    assert process.deliver() == ["counter-a"]


def test_a_row_that_cannot_be_read_changes_everything(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    table.insert(OutboxRow("x", 0, "{"))
    process = Process(table)

    process.outbox.turn()

    assert process.deliver() == [SITE_KEY]
    assert "row x of grip_edge_outbox cannot be read" in caplog.text


def test_a_topic_that_the_settings_no_longer_have_changes_everything(table: Table) -> None:
    Process(table).commit(change("a"))
    process = Process(table, topics("other"), now=1_100.0)

    process.outbox.turn()

    assert process.deliver() == [SITE_KEY]


def test_what_comes_while_it_closes_is_left_to_others(table: Table) -> None:
    """The dispatcher may have refused it by then."""
    dead, process = Process(table), Process(table, now=2_000.0)
    dead.commit(change("left"))
    process.outbox.close()
    process.commit(change("late"))

    process.outbox.turn()

    assert len(table.rows) == 2
    assert process.metrics.snapshot() == {}


def test_a_child_leaves_what_is_on_its_way_to_its_parent(table: Table) -> None:
    process = Process(table)
    process.commit(change("a"))

    process.outbox.after_fork()
    process.store.after_fork()
    process.outbox.turn()

    assert len(table.rows) == 1


# --- what a row says --------------------------------------------------------------------------


def changes_of_rows() -> Iterator[Change]:
    yield from ROWS.changes(Row("post", (7,), (("author_id", 3),)))
    yield ROWS.change_of_all("post")


@pytest.mark.parametrize(
    "original",
    [
        change("a"),
        change("ü, ;%\r\n"),
        Change(COUNTERS.template.fill({}), COUNTERS),
        Change.of_all(COUNTER),
        Change.of_site(TOPICS),
        Change(COUNTERS.template.fill({}), COUNTERS, encode_data({"value": "ü"})),
        Change(COUNTERS.template.fill({}), COUNTERS, encode_data(b"\x00\xff")),
        *changes_of_rows(),
    ],
    ids=lambda original: original.topic.name,
)
def test_what_is_written_is_read_again(original: Change) -> None:
    [read] = decode(encode([original]), TOPICS, ROWS)

    assert read == original
    assert read.topic.params == original.topic.params
    assert read.topic.template == original.topic.template


@given(st.lists(st.text(min_size=1), min_size=1))
def test_any_value_is_read_again(names: list[str]) -> None:
    changes: list[Any] = [change(name) for name in names]

    assert decode(encode(changes), TOPICS, ROWS) == changes
