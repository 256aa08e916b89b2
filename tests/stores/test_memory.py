"""What the memory store does beyond the contract."""

from __future__ import annotations

from grip_edge_middleware.stores import Overflow
from grip_edge_middleware.stores.memory import (
    FULL_INBOX,
    MAX_INBOX,
    MemoryStore,
)
from grip_edge_middleware.stores.rules import MAX_PUBLICATIONS
from tests.stores.test_contract import chat, counter, no_room, values


def test_versions_go_on_growing_after_a_restart() -> None:
    before = MemoryStore(wall_clock=lambda: 1_790_000_000.0)
    after = MemoryStore(wall_clock=lambda: 1_790_000_001.0)
    before.add([counter("blue")], 0.0)
    after.add([counter("blue")], 0.0)

    [old], [new] = before.claim(0.0, limit=1), after.claim(0.0, limit=1)
    assert int(old.publications[0].version) < int(new.publications[0].version)


def test_versions_grow_although_the_clock_is_set_back() -> None:
    times = iter([1_790_000_000.0, 1_789_000_000.0, 1_788_000_000.0])
    store = MemoryStore(wall_clock=lambda: next(times))
    store.add([chat("x", "1"), chat("x", "2")], 0.0)

    [claim] = store.claim(0.0, limit=1)
    first, second = (int(publication.version) for publication in claim.publications)
    assert int(claim.previous or 0) < first < second


def test_deltas_of_one_topic_are_bounded() -> None:
    store = MemoryStore()
    overflow = no_room(store, [chat("x", str(n)) for n in range(MAX_PUBLICATIONS + 7)], 0.0)

    [claim] = store.claim(0.0, limit=1)
    assert overflow == Overflow(refused=7)
    assert len(claim.publications) == MAX_PUBLICATIONS
    assert values(claim)[0] == "0"


def test_deltas_stay_bounded_while_a_target_is_down() -> None:
    """Each retry takes the claim away and gives it back, with a thousand more each time."""
    store = MemoryStore()
    for now in range(0, 500, 100):
        store.add([chat("x", "1")] * MAX_PUBLICATIONS, float(now))
        [claim] = store.claim(now + 10.0, limit=1)
        store.add([chat("x", "1")] * MAX_PUBLICATIONS, now + 20.0)
        store.postpone(claim, now + 30.0)

    [claim] = store.claim(1_000.0, limit=1)
    assert len(claim.publications) <= 2 * MAX_PUBLICATIONS


def test_a_claim_that_failed_is_due_at_its_next_try_although_a_newer_change_waits() -> None:
    store = MemoryStore()
    store.add([counter("blue", "1")], 0.0)
    [claim] = store.claim(0.0, limit=1)
    store.add([counter("blue", "2")], 0.1)  # due when the window of one second ends

    store.postpone(claim, 0.2)

    assert store.next_due() == 0.2
    [merged] = store.claim(0.2, limit=1)
    assert values(merged) == ["2"]


def test_what_is_idle_is_bounded() -> None:
    store = MemoryStore(max_versions=1_000)
    for number in range(10_000):
        store.add([counter(str(number))], float(number))
        store.release(store.claim(float(number), limit=10), float(number))

    assert len(store._shelf._records) <= 1_000
    assert len(store._shelf._queue._messages) <= 1_000
    assert store.pending() == 0


def test_a_version_that_is_forgotten_is_not_that_of_before_its_changes_again() -> None:
    store = MemoryStore(max_versions=2)
    before = store.versions(["counter-a"])
    for name in "abcd":
        store.add([counter(name)], 0.0)
        store.release(store.claim(0.0, limit=1), 0.0)

    assert store.versions(["counter-a"]) != before


def test_versions_are_remembered_although_few_topics_may_wait() -> None:
    store = MemoryStore(max_pending=2)
    before = store.versions(["counter-never"])
    for name in "abcd":
        store.add([counter(name)], 0.0)
        store.release(store.claim(0.0, limit=1), 0.0)

    assert store.versions(["counter-never"]) == before


def test_an_inbox_that_is_full_asks_to_be_emptied() -> None:
    store = MemoryStore()
    store.add([counter("blue")], 0.0)
    store.claim(0.0, limit=1)  # so its window is open for a second

    dues = [store.add([counter("blue")], 0.1) for _ in range(FULL_INBOX)]

    assert set(dues[:-1]) == {1.0}
    assert dues[-1] == 0.1


def test_an_inbox_that_nobody_empties_is_bounded() -> None:
    store = MemoryStore()
    for number in range(3 * MAX_INBOX):
        store.add([counter("blue")], float(number))

    assert len(store._inbox) <= MAX_INBOX
    assert store.pending() == 1


def test_no_number_comes_twice_though_the_clock_stands_still() -> None:
    store = MemoryStore(wall_clock=lambda: 1_800_000_000.0)
    before = store.sequence()
    store.after_fork()

    assert store.sequence() > before


def test_it_is_unchanged_until_something_is_added_and_not_while_a_read_may_lag() -> None:
    store, lagging = MemoryStore(), MemoryStore(replica_lag_s=1.0)
    since = store.sequence()
    was_unchanged = store.is_unchanged(since)
    store.add([counter("blue")], 0.0)

    assert was_unchanged
    assert not store.is_unchanged(since)
    assert not lagging.is_unchanged(lagging.sequence())
