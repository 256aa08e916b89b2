"""What every Shelf does, and what several clients do with one. For those in `SHELVES`."""

from __future__ import annotations

import math
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from grip_edge_middleware.errors import StoreError
from grip_edge_middleware.stores import Claim, Since
from grip_edge_middleware.stores.records import Record, Records, Shelf
from grip_edge_middleware.stores.shared import SharedStore
from tests.stores.test_contract import SHELVES, Clock, OpenShelf, chat, counter, held, values

NOW = 1_790_000_000.0


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = NOW
    return clock


@pytest.fixture(params=SHELVES)
def open_shelf(
    request: pytest.FixtureRequest, tmp_path: Path, clock: Clock
) -> Iterator[Callable[[], Shelf]]:
    """Opens the same shelf, as another process does."""
    opened: list[Shelf] = []

    def open_it() -> Shelf:
        opened.append(SHELVES[request.param](tmp_path, clock))
        return opened[-1]

    yield open_it
    for shelf in opened:
        shelf.close()


@pytest.fixture
def shelf(open_shelf: Callable[[], Shelf]) -> Shelf:
    return open_shelf()


def waits(shelf: Shelf, key: str, due: float, *, is_only_purged: bool = False) -> int:
    """Have a key wait; return the transaction's number."""

    def wait(records: Records) -> int:
        record = records.edit(key)
        change = counter(key)
        published_at = 0.0 if is_only_purged else None
        record.waiting = Claim(
            change.topic,
            change.settings,
            (),
            published_at=published_at,
            since=Since(records.sequence),
        )
        record.due = due
        return records.sequence

    return shelf.write([key], wait)


def done(shelf: Shelf, key: str) -> None:
    def end(records: Records) -> None:
        records.edit(key).waiting = None

    shelf.write([key], end)


def mark(shelf: Shelf, key: str) -> int:
    def note(records: Records) -> int:
        records.edit(key).mark = records.sequence
        return records.sequence

    return shelf.write([key], note)


def record_of(shelf: Shelf, key: str) -> Record | None:
    return shelf.write([key], lambda records: records.get(key))


# --- a step -----------------------------------------------------------------------------------


def test_what_a_step_changes_is_there_for_others(open_shelf: Callable[[], Shelf]) -> None:
    one, other = open_shelf(), open_shelf()
    said = Record(7, 1.5, "9", "8", 2.5, leased_until=math.inf, due=3.5)
    change = held("x")
    said.waiting = Claim(change.topic, change.settings, (), since=Since(3, 7.5))
    said.claimed = Claim(
        change.topic, change.settings, (), since=Since(2), missing=frozenset({"cdn"})
    )
    said.owner = "me"

    def change_it(records: Records) -> None:
        record = records.edit("k")
        for name in Record.__slots__:
            setattr(record, name, getattr(said, name))
        records.common.escalated.add("t-%all")

    one.write(["k"], change_it)

    assert record_of(other, "k") == said
    assert other.read(()).common.escalated == {"t-%all"}


def test_a_step_that_fails_changes_nothing(shelf: Shelf) -> None:
    def fail(records: Records) -> None:
        records.edit("k").mark = 1
        records.common.caught_up = "1"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shelf.write(["k"], fail)

    assert record_of(shelf, "k") is None
    assert shelf.read(()).common.caught_up == ""


def test_a_key_that_nobody_named_can_be_changed(shelf: Shelf) -> None:
    def change(records: Records) -> None:
        records.edit("other").mark = 5

    shelf.write(["k"], change)

    record = shelf.read(["other"]).get("other")
    assert record is not None
    assert record.mark == 5


def test_a_key_is_unknown_until_it_is_changed(shelf: Shelf) -> None:
    def look(records: Records) -> list[bool]:
        before = records.get("k")
        records.edit("k")
        return [before is None, records.get("k") is None]

    assert shelf.write(["k"], look) == [True, False]


def test_a_new_shelf_has_a_version_for_all(open_shelf: Callable[[], Shelf]) -> None:
    one, other = open_shelf(), open_shelf()
    version = one.read(()).common.first_version

    assert int(version) > 0
    assert other.read(()).common.first_version == version


# --- numbers ----------------------------------------------------------------------------------


def test_numbers_begin_with_the_time(shelf: Shelf) -> None:
    assert mark(shelf, "k") >= NOW * 1e6


def test_each_write_has_a_higher_number(open_shelf: Callable[[], Shelf]) -> None:
    one, other = open_shelf(), open_shelf()
    numbers = [mark(shelf, "k") for shelf in (one, other, one, one, other)]

    assert numbers == sorted(set(numbers))
    assert one.read(()).sequence == numbers[-1]


def test_numbers_grow_although_the_clock_is_set_back(shelf: Shelf, clock: Clock) -> None:
    before = mark(shelf, "k")
    clock.now -= 10_000.0

    assert mark(shelf, "k") > before


# --- what is due ------------------------------------------------------------------------------


def test_an_empty_shelf_has_nothing_to_do(shelf: Shelf) -> None:
    assert shelf.due(math.inf, 10, purges=True) == []
    assert shelf.next_due(purges=True) is None
    assert shelf.oldest() is None


def test_what_is_longest_due_comes_first(shelf: Shelf) -> None:
    for due, key in enumerate("dbca"):
        waits(shelf, key, NOW + due)

    assert shelf.due(NOW + 2, 10, purges=True) == ["d", "b", "c"]
    assert shelf.due(NOW + 2, 2, purges=True) == ["d", "b"]
    assert shelf.next_due(purges=True) == NOW


def test_purges_are_left_out_on_demand(shelf: Shelf) -> None:
    waits(shelf, "purge", NOW, is_only_purged=True)
    waits(shelf, "message", NOW + 1)

    assert shelf.due(NOW + 5, 10, purges=False) == ["message"]
    assert shelf.due(NOW + 5, 10, purges=True) == ["purge", "message"]
    assert shelf.next_due(purges=False) == NOW + 1
    assert shelf.next_due(purges=True) == NOW


def test_what_is_claimed_is_due_when_its_lease_ends(shelf: Shelf) -> None:
    waits(shelf, "k", NOW)

    def claim(records: Records) -> None:
        record = records.edit("k")
        record.claimed, record.waiting, record.leased_until = record.waiting, None, NOW + 9

    shelf.write(["k"], claim)

    assert shelf.next_due(purges=True) == NOW + 9


def test_what_is_claimed_for_ever_is_never_due(shelf: Shelf) -> None:
    waits(shelf, "k", NOW)

    def claim(records: Records) -> None:
        record = records.edit("k")
        record.claimed, record.waiting = record.waiting, None

    shelf.write(["k"], claim)

    assert shelf.next_due(purges=True) is None
    assert shelf.due(NOW + 1e9, 10, purges=True) == []


def test_the_oldest_is_what_waits_longest(shelf: Shelf) -> None:
    first, second = waits(shelf, "a", NOW), waits(shelf, "b", NOW)
    assert shelf.oldest() == first
    done(shelf, "a")

    assert shelf.oldest() == second


def test_how_many_are_pending_is_known_within_a_step(shelf: Shelf) -> None:
    for key in "abc":
        waits(shelf, key, NOW)
    done(shelf, "b")

    def count(records: Records) -> list[int]:
        before = records.pending()
        records.edit("a").waiting = None
        return [before, records.pending()]

    assert shelf.write((), count) == [2, 1]
    assert shelf.write((), lambda records: records.pending()) == 1


# --- reading ----------------------------------------------------------------------------------


def test_a_read_knows_the_keys_that_it_asked_for(shelf: Shelf) -> None:
    number = mark(shelf, "k")
    keys = ["k", *map(str, range(2_000))]

    records = shelf.read(keys)
    record = records.get("k")
    assert record is not None
    assert (record.mark, records.sequence) == (number, number)
    assert records.get("7") is None


def test_a_read_sees_whole_transactions(open_shelf: Callable[[], Shelf]) -> None:
    writing, reading = open_shelf(), open_shelf()
    is_over = threading.Event()
    mark_both(writing)

    def write() -> None:
        for _ in range(300):
            mark_both(writing)
        is_over.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = set()
    while not is_over.is_set():
        records = reading.read("ab")
        marks = {record.mark for key in "ab" if (record := records.get(key))}
        seen |= {(len(marks), records.sequence in marks)}
    thread.join()

    assert seen <= {(1, True)}


def mark_both(shelf: Shelf) -> None:
    def note(records: Records) -> None:
        for key in "ab":
            records.edit(key).mark = records.sequence

    shelf.write("ab", note)


# --- many at once -----------------------------------------------------------------------------


def increment(shelf: Shelf, times: int) -> None:
    def add_one(records: Records) -> None:
        record = records.edit("k")
        record.version = str(int(record.version or 0) + 1)

    for _ in range(times):
        while True:
            try:
                shelf.write(["k"], add_one)
            except StoreError:  # it was not done; all write as fast as they can
                continue
            break


def version(shelf: Shelf) -> str:
    record = shelf.read(["k"]).get("k")
    return "" if record is None else record.version


def test_threads_lose_nothing(shelf: Shelf) -> None:
    threads = [threading.Thread(target=increment, args=(shelf, 200)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert version(shelf) == "800"


def increment_in_child(name: str, folder: Path) -> None:
    shelf = SHELVES[name](folder, Clock())
    increment(shelf, 500)
    shelf.close()


@pytest.mark.parametrize("name", SHELVES)
def test_processes_lose_nothing(name: str, tmp_path: Path) -> None:
    """All create the shelf at once, too."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=increment_in_child, args=(name, tmp_path)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    shelf = SHELVES[name](tmp_path, Clock())

    assert version(shelf) == "2000"
    assert [child.exitcode for child in children] == [0] * 4
    shelf.close()


def test_a_child_and_its_parent_share_the_shelf(shelf: Shelf) -> None:
    increment(shelf, 1)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=increment, args=(shelf, 300))
    child.start()
    increment(shelf, 300)
    child.join()

    assert version(shelf) == "601"


def test_a_closed_shelf_is_opened_again(shelf: Shelf) -> None:
    increment(shelf, 1)
    shelf.close()
    increment(shelf, 1)

    assert version(shelf) == "2"


# --- several clients --------------------------------------------------------------------------


def late_claim(shelf: Shelf, clock: Clock) -> tuple[SharedStore, SharedStore, Claim]:
    """Return two clients, of which the first holds a claim that was the second's by then."""
    one, other = (SharedStore(shelf, lease_s=5.0, clock=clock) for _ in range(2))
    one.add([counter("blue", "old")], NOW)
    one.take_in()
    [claim] = one.claim(NOW, limit=1)
    clock.now += 6.0
    other.add([counter("blue", "new")], clock.now)
    other.take_in()
    other.release(other.claim(clock.now, limit=1), clock.now)
    return one, other, claim


def test_who_comes_back_late_does_not_have_an_old_message_sent_again(
    shelf: Shelf, clock: Clock
) -> None:
    one, other, claim = late_claim(shelf, clock)
    one.release([claim], clock.now)
    clock.now += 60.0

    [again] = [*other.claim(clock.now, limit=9), *one.claim(clock.now, limit=9)]
    assert again.is_confirmation
    assert values(again) == []


def test_who_comes_back_late_has_a_page_rendered_again(shelf: Shelf, clock: Clock) -> None:
    one, other = (SharedStore(shelf, lease_s=5.0, clock=clock) for _ in range(2))
    one.add([held("x")], NOW)
    one.take_in()
    [claim] = one.claim(NOW, limit=1)
    clock.now += 6.0
    [lost] = other.claim(clock.now, limit=1)
    other.release([lost], clock.now)
    one.release([claim], clock.now)
    clock.now += 60.0

    [again] = one.claim(clock.now, limit=9)
    assert again.publications[-1].version > lost.publications[-1].version


def test_who_comes_back_late_does_not_take_a_message_from_who_has_it(
    shelf: Shelf, clock: Clock
) -> None:
    one, other, last = (SharedStore(shelf, lease_s=5.0, clock=clock) for _ in range(3))
    one.add([counter("blue", "1")], clock.now)
    one.take_in()
    [claim] = one.claim(clock.now, limit=1)
    clock.now += 6.0
    other.claim(clock.now, limit=1)

    one.release([claim], clock.now)  # so a confirmation is waiting
    clock.now += 6.0  # and who had it was killed

    [left] = last.claim(clock.now, limit=1)
    assert values(left) == ["1"]


class ClientsMachine(RuleBasedStateMachine):
    """Three clients, any of which may die at any time, or sleep until its lease has ended."""

    open_shelf: OpenShelf
    LEASE_S = 20.0

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.clock = Clock()
        self.clock.now = NOW
        self.shelves: list[Shelf] = []
        self.clients = [self._client() for _ in range(3)]
        self.count = 0
        self.submitted: dict[str, list[str]] = {}
        self.delivered: dict[str, list[str]] = {}
        self.held: list[tuple[SharedStore, Claim]] = []
        self.live: dict[str, tuple[SharedStore, Claim, float]] = {}
        self.last_version: dict[str, int] = {}
        self.last_claimed: dict[str, float] = {}
        self.was_postponed: set[str] = set()

    def _client(self) -> SharedStore:
        self.shelves.append(self.open_shelf(Path(self.folder.name), self.clock))
        return SharedStore(
            self.shelves[-1], lease_s=self.LEASE_S, look_s=math.inf, clock=self.clock
        )

    @rule(who=st.integers(0, 2), name=st.sampled_from("ab"), coalesce=st.booleans())
    def add(self, who: int, name: str, coalesce: bool) -> None:
        self.count += 1
        change = (counter if coalesce else chat)(name, str(self.count))
        self.clients[who].add([change], self.clock.now)
        self.clients[who].take_in()
        self.submitted.setdefault(change.topic.name, []).append(str(self.count))

    @rule(seconds=st.sampled_from([0.125, 0.5, 1.0, 5.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(who=st.integers(0, 2), limit=st.integers(1, 4), everything=st.booleans())
    def claim(self, who: int, limit: int, everything: bool) -> None:
        client = self.clients[who]
        for claim in client.claim(self.clock.now, limit=limit, everything=everything):
            self._check(claim, everything=everything)
            self.held.append((client, claim))
            self.live[claim.topic.name] = (client, claim, self.clock.now + self.LEASE_S)

    def _check(self, claim: Claim, *, everything: bool) -> None:
        key, now = claim.topic.name, self.clock.now
        assert key not in self.live or self.live[key][2] <= now, "claimed by two"
        versions = [int(p.version) for p in claim.publications if not p.is_marker]
        assert versions == sorted(set(versions))
        if versions:
            assert versions[-1] >= self.last_version.get(key, 0)
            self.last_version[key] = versions[-1]
        if claim.is_confirmation:
            return
        last = self.last_claimed.get(key)
        if last is not None and not everything and key not in self.was_postponed:
            assert now >= last + claim.settings.throttle, "twice in a window"
        self.was_postponed.discard(key)
        self.last_claimed[key] = now

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Perhaps when it is not the client's any more."""
        client, claim = self._take(data)
        client.release([claim], self.clock.now)
        if self._is_live(client, claim):
            del self.live[claim.topic.name]
            self.delivered.setdefault(claim.topic.name, []).extend(values(claim))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), seconds=st.sampled_from([0.125, 2.0]))
    def postpone(self, data: st.DataObject, seconds: float) -> None:
        client, claim = self._take(data)
        client.postpone(claim, self.clock.now + seconds)
        if self._is_live(client, claim):
            del self.live[claim.topic.name]
            self.was_postponed.add(claim.topic.name)

    @rule(who=st.integers(0, 2))
    def die(self, who: int) -> None:
        dead = self.clients[who]
        self.clients[who] = self._client()
        self.held = [(client, claim) for client, claim in self.held if client is not dead]

    def _take(self, data: st.DataObject) -> tuple[SharedStore, Claim]:
        return self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))

    def _is_live(self, client: SharedStore, claim: Claim) -> bool:
        """Whether it is the client's; if he claimed it once more himself, either claim ends it."""
        live = self.live.get(claim.topic.name)
        return live is not None and live[0] is client and _says(live[1]) == _says(claim)

    def teardown(self) -> None:
        """Whoever comes last delivers all that others left."""
        client = self._client()
        for _ in range(5):
            self.clock.now += 1_000.0
            for claim in client.claim(self.clock.now, limit=100):
                self._check(claim, everything=False)
                self.delivered.setdefault(claim.topic.name, []).extend(values(claim))
                client.release([claim], self.clock.now)
        for key, submitted in self.submitted.items():
            if key.startswith("chat"):
                assert set(self.delivered[key]) == set(submitted)
            assert self.delivered[key][-1] == submitted[-1]
        assert self.shelves[-1].oldest() is None
        for shelf in self.shelves:
            shelf.close()
        self.folder.cleanup()


def _says(claim: Claim) -> tuple[int, list[str]]:
    return claim.confirmations, [publication.version for publication in claim.publications]


@pytest.mark.parametrize("name", SHELVES)
def test_any_sequence_of_calls_of_several_clients(name: str) -> None:
    machine = type("Machine", (ClientsMachine,), {"open_shelf": staticmethod(SHELVES[name])})
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(max_examples=100, stateful_step_count=40, deadline=None),
    )
