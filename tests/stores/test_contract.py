"""What every Store does. All of it holds for what is in `STORES`, or on a shelf in `SHELVES`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from grip_edge_middleware.changes import Change, encode
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.stores import Claim, Intake, Overflow, Store
from grip_edge_middleware.stores.codec import Codec
from grip_edge_middleware.stores.memory import MemoryStore
from grip_edge_middleware.stores.records import Shelf
from grip_edge_middleware.stores.redis import RedisShelf
from grip_edge_middleware.stores.rules import MAX_PUBLICATIONS, MAX_TYPES
from grip_edge_middleware.stores.shared import SharedStore
from grip_edge_middleware.stores.sqlite import SQLiteShelf
from grip_edge_middleware.topics import SITE_KEY
from tests.stores import redis_server

MAX_PENDING = 5

SETTINGS = Settings.parse(
    {
        "throttle": 1.0,
        "topics": {
            "counter-{name}": {"routes": ["/counters/<name>/"]},
            "chat-{name}": {"routes": ["/chats/<name>/"], "coalesce": False},
            "held-{name}": {"routes": ["/held/<name>/"], "hold": "stream"},
            "list": {"routes": ["/list/"]},
        },
        "grip_url": None,
    },
    {},
)
COUNTER, CHAT, HELD, LIST = SETTINGS.topics
CODEC = Codec(SETTINGS.topics, throttle_s=1.0)


class Clock:
    """Says what it was told last: that of the shelf, and of the process."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


OpenShelf = Callable[[Path, Clock], Shelf]
SHELVES: dict[str, OpenShelf] = {
    "sqlite": lambda folder, clock: SQLiteShelf(folder / "store.sqlite3", CODEC, clock=clock),
    "redis": lambda folder, clock: RedisShelf(
        redis_server.shared_url, CODEC, name=str(folder), clock=clock
    ),
}


def share(open_shelf: OpenShelf, folder: Path, clock: Clock) -> Store:
    """Return a store on a shelf. What it has claimed stays its own, and it has no others."""
    shelf = open_shelf(folder, clock)
    return SharedStore(
        shelf, max_pending=MAX_PENDING, lease_s=math.inf, look_s=math.inf, clock=clock
    )


MakeStore = Callable[[Path, Clock], Store]
STORES: dict[str, MakeStore] = {
    "memory": lambda _, clock: MemoryStore(
        max_pending=MAX_PENDING, clock=clock, wall_clock=lambda: 1_790_000_000.0
    ),
    **{name: partial(share, open_shelf) for name, open_shelf in SHELVES.items()},
}


class InTime:
    """A store whose clock says when something is added, and that takes it in at once."""

    def __init__(self, make: MakeStore, folder: Path) -> None:
        self._clock = Clock()
        self._store = make(folder, self._clock)
        self._intake = Intake()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def add(self, changes: list[Change], now: float) -> float:
        self._clock.now = now
        due = self._store.add(changes, now)
        self._intake = self._intake.plus(*self._store.take_in())
        return due

    def take_in(self) -> Intake:
        intake, self._intake = self._intake, Intake()
        return intake


@pytest.fixture(params=STORES)
def make(request: pytest.FixtureRequest) -> MakeStore:
    return STORES[request.param]


@pytest.fixture
def store(make: MakeStore, tmp_path: Path) -> Iterator[Store]:
    with closing(InTime(make, tmp_path)) as store:
        yield cast("Store", store)


def counter(name: str, value: str | None = None) -> Change:
    return _change(COUNTER, name, value)


def chat(name: str, value: str) -> Change:
    return _change(CHAT, name, value)


def held(name: str) -> Change:
    return _change(HELD, name, None)


def _change(topic: Any, name: str, value: str | None, param: str = "name") -> Change:
    message = None if value is None else encode(value)
    return Change(topic.template.fill({param: name}), topic, message)


def no_room(store: Store, changes: list[Change], now: float) -> Overflow:
    """Add the changes; return what there was no room for."""
    store.take_in()
    store.add(changes, now)
    return store.take_in().overflow


def values(claim: Claim) -> list[str]:
    return [p.message["stream"].body.decode() for p in claim.publications if p.message is not None]


def names(claims: list[Claim]) -> list[str]:
    return [claim.topic.name for claim in claims]


# --- due and claimed --------------------------------------------------------------------------


def test_an_empty_store_has_nothing_to_claim(store: Store) -> None:
    assert store.claim(0.0, limit=10) == []
    assert store.next_due() is None
    assert store.pending() == 0


def test_the_first_change_is_due_at_once(store: Store) -> None:
    store.add([counter("blue")], 5.0)

    assert store.next_due() == 5.0
    assert names(store.claim(5.0, limit=10)) == ["counter-blue"]


def test_a_claimed_topic_is_not_claimed_again(store: Store) -> None:
    store.add([counter("blue")], 0.0)
    store.claim(0.0, limit=10)
    store.add([counter("blue")], 0.1)

    assert store.claim(100.0, limit=10) == []
    assert store.claim(100.0, limit=10, everything=True) == []
    assert store.next_due() is None
    assert store.pending() == 1


def test_a_change_during_the_claim_is_due_at_the_end_of_the_window(store: Store) -> None:
    store.add([counter("blue", "1")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.add([counter("blue", "2")], 0.1)
    store.release([claim], 0.0)

    assert store.next_due() == 1.0
    assert store.claim(0.9, limit=10) == []
    assert [values(claim) for claim in store.claim(1.0, limit=10)] == [["2"]]


def test_a_claim_released_late_is_due_at_once(store: Store) -> None:
    store.add([counter("blue")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.add([counter("blue")], 0.1)
    store.release([claim], 0.0)

    assert names(store.claim(7.0, limit=10)) == ["counter-blue"]


def test_what_was_released_is_forgotten(store: Store) -> None:
    store.add([counter("blue")], 0.0)
    store.release(store.claim(0.0, limit=10), 0.0)

    assert store.pending() == 0
    assert store.claim(100.0, limit=10, everything=True) == []


def test_a_limit_leaves_the_rest(store: Store) -> None:
    store.add([counter(name) for name in "abcd"], 0.0)

    assert len(store.claim(0.0, limit=3)) == 3
    assert len(store.claim(0.0, limit=3)) == 1


def test_what_is_longest_due_comes_first(store: Store) -> None:
    for now, name in enumerate("dbca"):
        store.add([counter(name)], float(now))

    assert names(store.claim(10.0, limit=2)) == ["counter-d", "counter-b"]


def test_everything_is_claimed_before_its_time_on_demand(store: Store) -> None:
    store.add([counter("blue")], 0.0)
    store.release(store.claim(0.0, limit=10), 0.0)
    store.add([counter("blue")], 0.1)

    assert names(store.claim(0.1, limit=10, everything=True)) == ["counter-blue"]


# --- merging ----------------------------------------------------------------------------------


def test_of_several_changes_the_last_remains(store: Store) -> None:
    store.add([counter("blue", "1"), counter("blue", "2")], 0.0)
    store.add([counter("blue", "3")], 0.0)

    [claim] = store.claim(0.0, limit=10)
    assert values(claim) == ["3"]


def test_deltas_all_remain_in_order(store: Store) -> None:
    store.add([chat("x", str(number)) for number in range(5)], 0.0)
    store.add([chat("x", "5")], 0.5)

    [claim] = store.claim(1.0, limit=10)
    assert values(claim) == ["0", "1", "2", "3", "4", "5"]


def test_postponed_deltas_come_before_newer_ones(store: Store) -> None:
    store.add([chat("x", "1"), chat("x", "2")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.add([chat("x", "3")], 0.5)
    store.postpone(claim, 0.6)

    [claim] = store.claim(5.0, limit=10)
    assert values(claim) == ["1", "2", "3"]


def test_topics_do_not_mix(store: Store) -> None:
    store.add([counter("blue", "1"), counter("red", "2")], 0.0)

    claims = store.claim(0.0, limit=10)
    assert {claim.topic.name: values(claim) for claim in claims} == {
        "counter-blue": ["1"],
        "counter-red": ["2"],
    }


# --- postponing -------------------------------------------------------------------------------


def test_a_postponed_claim_is_due_when_it_was_said_to_be(store: Store) -> None:
    store.add([counter("blue")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.postpone(claim, 30.0)

    assert store.next_due() == 30.0
    assert store.claim(29.9, limit=10) == []
    assert store.claim(30.0, limit=10) == [claim]


def test_a_newer_change_prevails_over_what_was_postponed(store: Store) -> None:
    store.add([counter("blue", "1")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.add([counter("blue", "2")], 0.1)
    store.postpone(claim, 30.0)

    [claim] = store.claim(1.0, limit=10)
    assert values(claim) == ["2"]
    assert claim.missing is None


@pytest.mark.parametrize(("is_partial", "due"), [(False, 0.2), (True, 1.0)])
def test_who_has_it_already_gets_no_more_before_the_window_ends(
    store: Store, is_partial: bool, due: float
) -> None:
    store.add([counter("early"), counter("late")], 0.0)
    early, late = store.claim(0.0, limit=10)
    store.add([counter("early")], 0.1)
    for claim in (early, late):
        store.postpone(replace(claim, is_partial=is_partial), 0.2)
    store.add([counter("late")], 0.2)

    assert store.next_due() == due
    assert len(store.claim(due, limit=10)) == 2


def test_a_retry_for_some_target_opens_no_window_for_the_others(store: Store) -> None:
    store.add([counter("blue", "1")], 0.0)
    for now in (0.0, 0.9, 1.8):
        [claim] = store.claim(now, limit=10)
        store.postpone(replace(claim, is_partial=True), now + 0.9)
    store.add([counter("blue", "2")], 2.0)

    assert store.next_due() == 2.0


def test_a_change_after_postponing_prevails_too(store: Store) -> None:
    store.add([counter("blue", "1")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.postpone(claim, 30.0)
    store.add([counter("blue", "2")], 2.0)

    [claim] = store.claim(2.0, limit=10)
    assert values(claim) == ["2"]
    assert claim.missing is None


# --- published before it was purged -----------------------------------------------------------


def published(claim: Claim, at: float) -> Claim:
    return replace(claim, is_partial=True, published_at=at, missing=frozenset({"cdn"}))


def test_what_was_published_is_put_back_without_its_message(store: Store) -> None:
    store.add([chat("x", "1"), chat("x", "2")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.postpone(published(claim, 0.1), 3.0)

    assert store.pending() == 1
    assert store.claim(2.9, limit=10) == []
    [late] = store.claim(3.0, limit=10)
    assert values(late) == []
    assert late.missing == frozenset({"cdn"})


def test_mere_purges_are_left_while_their_cdn_rests(store: Store) -> None:
    store.add([counter("blue"), counter("red")], 0.0)
    for claim in store.claim(0.0, limit=1):
        store.postpone(published(claim, 0.1), 0.2)

    assert store.next_due(purges=False) == 0.0
    assert names(store.claim(5.0, limit=10, purges=False)) == ["counter-red"]
    assert store.claim(5.0, limit=10, everything=True, purges=False) == []
    assert store.next_due(purges=False) is None
    assert store.next_due() == 0.2
    assert names(store.claim(5.0, limit=10)) == ["counter-blue"]


def test_a_late_purge_opens_no_window(store: Store) -> None:
    store.add([counter("blue")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.postpone(published(claim, 0.1), 5.0)
    store.release(store.claim(5.0, limit=10), 5.0)
    store.add([counter("blue")], 5.1)

    assert store.next_due() == 5.1


def test_a_change_after_a_late_purge_waits_for_its_window_and_takes_the_purge_along(
    store: Store,
) -> None:
    store.add([counter("blue", "1")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.postpone(published(claim, 0.1), 0.2)
    store.add([counter("blue", "2")], 0.3)

    assert store.claim(0.9, limit=10) == []
    [claim] = store.claim(1.0, limit=10, purges=False)
    assert (values(claim), claim.missing) == (["2"], None)
    store.release([claim], 1.0)
    assert store.pending() == 0


def test_the_next_version_follows_the_one_that_was_published_before_its_purge(store: Store) -> None:
    store.add([held("blue")], 0.0)
    [first] = store.claim(0.0, limit=10)
    store.postpone(published(first, 0.1), 0.2)
    store.add([held("blue")], 1.0)

    [second] = store.claim(1.0, limit=10)
    assert second.previous == first.publications[-1].version


# --- room and versions ------------------------------------------------------------------------


def test_changes_beyond_max_pending_are_purged_together_by_their_type(store: Store) -> None:
    overflow = no_room(store, [counter(str(number)) for number in range(MAX_PENDING + 3)], 0.0)

    assert overflow == Overflow(escalated=3)
    assert store.pending() == MAX_PENDING + 1
    assert store.escalated() == ["counter-%all"]
    *_, claim = sorted(store.claim(0.0, limit=100), key=lambda claim: claim.is_escalated)
    assert (claim.keys, values(claim)) == (("counter-%all",), [])


def full(store: Store) -> Store:
    store.add([counter(str(number)) for number in range(MAX_PENDING)], 0.0)
    return store


def test_a_change_of_each_type_waits_for_its_type(store: Store) -> None:
    full(store).add([counter("x"), chat("x", "1"), counter("y")], 0.0)

    assert store.escalated() == ["chat-%all", "counter-%all"]
    assert store.pending() == MAX_PENDING + 2


def test_the_whole_site_waits_when_too_many_types_do(store: Store) -> None:
    many = {f"t{number}-{{n}}": {"routes": [f"/t{number}/<n>/"]} for number in range(30)}
    settings = Settings.parse({"topics": many}, {})
    overflow = no_room(
        full(store), [_change(topic, "x", None, "n") for topic in settings.topics], 0.0
    )

    assert overflow == Overflow(escalated=30)
    assert len(store.escalated()) == MAX_TYPES + 1
    assert SITE_KEY in store.escalated()


def test_a_page_tagged_with_a_shortened_name_does_not_know_its_type(store: Store) -> None:
    full(store).add([counter("x" * 300)], 0.0)

    assert store.escalated() == [SITE_KEY]


def test_a_topic_on_its_way_keeps_its_place(store: Store) -> None:
    store.add([counter("first")], 0.0)
    store.claim(0.0, limit=1)

    assert no_room(full(store), [counter("first")], 0.0) == Overflow()


def test_a_topic_without_parameters_always_has_room(store: Store) -> None:
    assert no_room(full(store), [_change(LIST, "", None)], 0.0) == Overflow()
    assert store.escalated() == []


def test_no_more_is_escalated_when_there_is_room_again(store: Store) -> None:
    full(store).add([counter("x")], 0.0)
    store.release(store.claim(0.0, limit=100), 0.0)

    assert store.escalated() == []
    assert no_room(store, [counter("x")], 0.0) == Overflow()


def test_types_are_purged_once_a_window(store: Store) -> None:
    full(store).add([counter("x")], 0.0)
    claims = store.claim(0.0, limit=100)
    [escalated] = [claim for claim in claims if claim.is_escalated]
    store.release([escalated], 0.0)
    for claim in claims:
        if claim is not escalated:
            store.postpone(claim, 0.5)
    store.add([counter("y")], 0.6)

    assert "counter-%all" not in names(store.claim(0.9, limit=100))
    assert "counter-%all" in names(store.claim(1.0, limit=100))


def test_a_further_change_has_its_type_purged_at_every_target_again(store: Store) -> None:
    full(store).add([counter("x")], 0.0)
    [escalated] = [claim for claim in store.claim(0.0, limit=100) if claim.is_escalated]
    store.postpone(replace(escalated, missing=frozenset({"cdn"})), 0.5)
    full(store).add([counter("y")], 0.6)

    [again] = [claim for claim in store.claim(5.0, limit=100) if claim.is_escalated]
    assert again.missing is None


def test_a_message_too_many_is_refused_but_its_page_purged(store: Store) -> None:
    store.add([chat("x", "1")] * MAX_PUBLICATIONS, 0.0)
    [claim] = store.claim(0.0, limit=1)
    store.postpone(replace(claim, missing=frozenset({"grip"})), 1.0)

    assert no_room(store, [chat("x", "1")], 0.5) == Overflow(refused=1)
    [claim] = store.claim(1.0, limit=1)
    assert claim.missing is None
    assert len(claim.publications) == MAX_PUBLICATIONS


def test_who_may_have_missed_something_has_no_version_that_is_current(store: Store) -> None:
    """Which of a type's topics changed is not known, so all begin anew."""
    store.add([held("known")], 0.0)
    store.release(store.claim(0.0, limit=1), 0.0)
    [before] = store.versions(["held-known"]).values()
    full(store).add([held("x")], 2.0)
    claims = store.claim(2.0, limit=100)
    [after] = store.versions(["held-known"]).values()

    assert after != before
    assert store.versions(["held-x", "held-known"]) == {"held-x": after, "held-known": after}
    for claim in claims:
        store.postpone(replace(claim, missing=frozenset({"grip"})), 3.0)
    claims = store.claim(3.0, limit=100)
    assert store.versions(["held-known"]) == {"held-known": after}
    store.release(claims, 3.0)
    store.add([held("known")], 4.0)
    [claim] = store.claim(4.0, limit=100)
    assert claim.previous == after


def test_until_clients_have_caught_up_what_is_published_follows_what_was_before(
    store: Store,
) -> None:
    """While the CDN is down, whoever is sent to the next link may find an old page there."""
    store.add([held("known")], 0.0)
    [first] = store.claim(0.0, limit=1)
    store.release([first], 0.0)
    full(store).add([held("x")], 2.0)
    claims = store.claim(2.0, limit=100)
    store.release([claim for claim in claims if not claim.is_escalated], 2.0)
    store.add([held("known")], 4.0)

    [claim] = store.claim(4.0, limit=100)
    assert claim.previous == first.publications[-1].version


def test_nobody_has_missed_anything_of_a_type_that_is_not_held(store: Store) -> None:
    [before] = store.versions(["held-known"]).values()
    full(store).add([counter("x")], 0.0)
    store.claim(0.0, limit=100)

    assert store.versions(["held-known"]) == {"held-known": before}


def test_a_full_store_still_takes_changes_of_what_is_pending(store: Store) -> None:
    store.add([counter(str(number)) for number in range(MAX_PENDING)], 0.0)

    assert no_room(store, [counter("0", "new")], 0.0) == Overflow()


# --- changes of all topics of a template ------------------------------------------------------


def test_a_change_of_all_topics_is_a_purge_of_their_type(store: Store) -> None:
    overflow = no_room(store, [Change.of_all(COUNTER), counter("blue")], 0.0)

    claims = {claim.topic.name: claim for claim in store.claim(0.0, limit=10)}
    assert overflow == Overflow()
    assert claims["counter-%all"].keys == ("counter-%all",)
    assert claims["counter-%all"].is_escalated
    assert set(claims) == {"counter-%all", "counter-blue"}


def test_a_change_of_all_of_one_topic_is_a_change_of_it(store: Store) -> None:
    store.add([Change.of_all(LIST)], 0.0)

    [claim] = store.claim(0.0, limit=10)
    assert (claim.topic.name, claim.is_escalated) == ("list", False)


def test_a_change_of_the_site_is_a_purge_of_all(store: Store) -> None:
    store.add([Change.of_site(SETTINGS.topics)], 0.0)

    [claim] = store.claim(0.0, limit=10)
    assert (claim.topic.name, claim.keys) == (SITE_KEY, (SITE_KEY,))
    assert claim.settings is HELD  # so that clients are told


def test_what_was_begun_before_a_change_of_all_is_overtaken(store: Store) -> None:
    begun = store.sequence()
    store.add([Change.of_all(COUNTER)], 0.0)

    assert store.has_changed(["counter-%all"], begun)
    assert not store.has_changed(["chat-%all"], begun)


def test_a_change_of_all_that_nobody_is_held_for_has_a_version(store: Store) -> None:
    before = store.versions(["counter-%all", "counter-blue", "held-known"])
    store.add([Change.of_all(COUNTER)], 0.0)
    store.claim(0.0, limit=10)

    after = store.versions(["counter-%all", "counter-blue", "held-known"])
    assert int(after.pop("counter-%all")) > int(before.pop("counter-%all"))
    assert after == before


def test_each_key_of_a_change_has_its_version(store: Store) -> None:
    [before] = store.versions(["counter-%any"]).values()
    store.add([counter("blue")], 0.0)
    store.claim(0.0, limit=10)

    assert int(store.versions(["counter-%any"])["counter-%any"]) > int(before)


# --- what is delivered ------------------------------------------------------------------------


def test_all_is_delivered_while_nothing_waits(store: Store) -> None:
    assert store.delivered() == store.submitted()


def test_a_change_is_not_delivered_before_it_is_released(store: Store) -> None:
    store.add([counter("blue")], 0.0)
    number = store.submitted()
    assert store.delivered() < number
    claims = store.claim(0.0, limit=10)
    assert store.delivered() < number

    store.release(claims, 0.0)

    assert store.delivered() >= number


def test_a_change_that_is_merged_into_a_later_one_is_delivered_with_it(store: Store) -> None:
    store.add([counter("blue")], 0.0)
    first = store.submitted()
    [claim] = store.claim(0.0, limit=10)
    store.add([counter("blue")], 0.1)
    store.postpone(claim, 0.2)
    assert store.delivered() < first

    store.release(store.claim(9.0, limit=10), 9.0)

    assert store.delivered() == store.submitted()


def test_a_change_is_delivered_although_its_topic_has_changed_again(store: Store) -> None:
    store.add([counter("blue")], 0.0)
    first = store.submitted()
    claims = store.claim(0.0, limit=10)
    store.add([counter("blue")], 0.1)
    store.release(claims, 0.2)

    assert first <= store.delivered() < store.submitted()


def test_what_there_was_no_room_for_is_delivered_with_its_type(store: Store) -> None:
    store.add([counter(str(number)) for number in range(MAX_PENDING + 2)], 0.0)
    number = store.submitted()
    claims = store.claim(0.0, limit=100)
    store.release([claim for claim in claims if not claim.is_escalated], 0.0)
    assert store.delivered() < number

    store.release([claim for claim in claims if claim.is_escalated], 0.0)

    assert store.delivered() >= number


def test_a_late_purge_is_not_delivered(store: Store) -> None:
    store.add([held("x")], 0.0)
    number = store.submitted()
    [claim] = store.claim(0.0, limit=10)
    store.postpone(replace(claim, missing=frozenset({"cdn"}), published_at=0.0), 1.0)

    assert store.delivered() < number


def test_versions_grow_with_every_change(store: Store) -> None:
    store.add([chat("x", str(number)) for number in range(100)], 0.0)

    [claim] = store.claim(0.0, limit=10)
    versions = [int(publication.version) for publication in claim.publications]
    assert versions == sorted(set(versions))


def test_what_was_begun_before_a_topic_got_its_version_is_overtaken(store: Store) -> None:
    """It says the version before, and of a client that has this, that it is up to date."""
    store.add([counter("blue")], 0.0)
    begun = store.sequence()
    [claim] = store.claim(0.0, limit=1)
    begun_later = store.sequence()
    store.postpone(claim, 1.0)
    store.claim(1.0, limit=1)  # with the version that it has

    assert store.has_changed(["counter-blue"], begun)
    assert not store.has_changed(["counter-blue"], begun_later)


def test_two_processes_never_give_out_the_same_version(make: MakeStore, tmp_path: Path) -> None:
    """A proxy drops an item whose id it had lately: two workers that save at once must differ."""
    with (
        closing(InTime(make, tmp_path)) as one,
        closing(InTime(make, tmp_path)) as other,
    ):
        one.add([counter("blue", "1")], 0.0)
        [first] = one.claim(0.0, limit=1)
        one.release([first], 0.0)
        other.add([counter("blue", "2")], 1.0)
        [second] = other.claim(1.0, limit=1)

    assert first.publications[0].version != second.publications[0].version


def test_a_child_process_starts_with_nothing(store: Store) -> None:
    store.add([counter("blue"), counter("red")], 0.0)
    store.claim(0.0, limit=1)

    store.after_fork()

    assert store.pending() == 0
    assert store.claim(100.0, limit=10, everything=True) == []


# --- several threads --------------------------------------------------------------------------


def test_no_change_is_lost_between_threads(store: Store) -> None:
    claimed: list[Claim] = []
    is_over = threading.Event()

    def add(name: str) -> None:
        for number in range(100):
            store.add([chat(name, str(number))], float(number))

    def claim() -> None:
        while not is_over.is_set() or store.pending():
            claims = store.claim(0.0, limit=10, everything=True)
            claimed.extend(claims)
            store.release(claims, 0.0)

    adding = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    claiming = [threading.Thread(target=claim) for _ in range(2)]
    for thread in adding + claiming:
        thread.start()
    for thread in adding:
        thread.join()
    is_over.set()
    for thread in claiming:
        thread.join()

    assert sum(len(claim.publications) for claim in claimed) == 400


# --- any sequence of calls --------------------------------------------------------------------


class StoreMachine(RuleBasedStateMachine):
    """Random calls against a model that knows, per topic, what must still be delivered."""

    make: MakeStore

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = cast("Store", InTime(self.make, Path(self.folder.name)))
        self.now = 0.0
        self.count = 0
        self.claims: dict[str, Claim] = {}
        self.waiting: dict[str, list[str]] = {}  # not claimed
        self.last_claimed: dict[str, float] = {}
        self.was_postponed: set[str] = set()

    @rule(name=st.sampled_from("abc"), coalesce=st.booleans())
    def add(self, name: str, coalesce: bool) -> None:
        self.count += 1
        change = (counter if coalesce else chat)(name, str(self.count))
        key = change.topic.name
        is_known = key in self.waiting or key in self.claims
        is_room = is_known or len(self.waiting.keys() | self.claims.keys()) < MAX_PENDING
        assert no_room(self.store, [change], self.now) == Overflow(escalated=not is_room)
        if is_room:
            kept = [] if coalesce else self.waiting.get(key, [])
            self.waiting[key] = [*kept, str(self.count)]
        else:
            self.waiting[change.settings.template.type_key] = []

    @rule(seconds=st.sampled_from([0.0, 0.125, 0.5, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(limit=st.integers(1, 4), everything=st.booleans())
    def claim(self, limit: int, everything: bool) -> None:
        due = self.store.next_due()
        claims = self.store.claim(self.now, limit=limit, everything=everything)
        assert len(claims) <= limit
        assert bool(claims) == (due is not None and (everything or due <= self.now))
        for claim in claims:
            self._check_claim(claim, everything=everything)

    def _check_claim(self, claim: Claim, *, everything: bool) -> None:
        key = claim.topic.name
        assert key not in self.claims, "in flight twice"
        assert values(claim) == self.waiting.pop(key)
        versions = [int(publication.version) for publication in claim.publications]
        assert versions == sorted(set(versions))
        self.claims[key] = claim
        if claim.is_only_purged:
            return
        last = self.last_claimed.get(key)
        if last is not None and not everything and key not in self.was_postponed:
            assert self.now >= last + claim.settings.throttle
        self.was_postponed.discard(key)
        self.last_claimed[key] = self.now

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.claims)))
        self.store.release([self.claims.pop(key)], self.now)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), seconds=st.sampled_from([0.125, 2.0]))
    def postpone(self, data: st.DataObject, seconds: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.claims)))
        claim = self.claims.pop(key)
        self.store.postpone(claim, self.now + seconds)
        newer = self.waiting.get(key, [])
        older = [] if newer and claim.settings.coalesce else values(claim)
        self.waiting[key] = older + newer
        self.was_postponed.add(key)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), seconds=st.sampled_from([0.125, 2.0]))
    def publish_before_the_purge(self, data: st.DataObject, seconds: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.claims)))
        claim = self.claims.pop(key)
        if not claim.is_escalated:
            claim = published(claim, self.now)
        self.store.postpone(claim, self.now + seconds)
        self.waiting.setdefault(key, [])

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.store.pending() == len(self.waiting.keys() | self.claims.keys())

    @invariant()
    def what_waits_has_a_time(self) -> None:
        is_claimable = bool(self.waiting.keys() - self.claims.keys())
        assert (self.store.next_due() is not None) == is_claimable

    def teardown(self) -> None:
        """Whatever happened, everything can be delivered."""
        self.store.release(self.claims.values(), self.now)
        self.claims.clear()
        claims = self.store.claim(self.now + 1_000, limit=100)
        assert {claim.topic.name: values(claim) for claim in claims} == self.waiting
        self.store.release(claims, 0.0)
        assert self.store.pending() == 0
        self.store.close()
        self.folder.cleanup()


@pytest.mark.parametrize("name", STORES)
def test_any_sequence_of_calls(name: str) -> None:
    machine = type("Machine", (StoreMachine,), {"make": staticmethod(STORES[name])})
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None),
    )


# --- since when -------------------------------------------------------------------------------


def test_a_claim_knows_when_its_change_was_submitted(store: Store) -> None:
    store.add([counter("blue")], 5.0)
    [claim] = store.claim(7.0, limit=10)

    assert claim.since.at == pytest.approx(5.0)


def test_changes_that_leave_together_count_from_the_first(store: Store) -> None:
    store.add([counter("blue", "1")], 5.0)
    store.add([counter("blue", "2")], 6.0)
    [claim] = store.claim(7.0, limit=10)

    assert claim.since.at == pytest.approx(5.0)


def test_what_was_postponed_counts_on(store: Store) -> None:
    store.add([counter("blue", "1")], 5.0)
    [claim] = store.claim(5.0, limit=10)
    store.postpone(claim, 6.0)
    store.add([counter("blue", "2")], 5.5)
    [claim] = store.claim(7.0, limit=10)

    assert claim.since.at == pytest.approx(5.0)


def test_the_oldest_of_what_is_pending_is_known_also_while_it_is_on_its_way(store: Store) -> None:
    assert store.pending_since() is None
    store.add([counter("blue")], 5.0)
    [claim] = store.claim(5.0, limit=10)
    store.add([counter("red")], 6.0)

    assert store.pending_since() == pytest.approx(5.0)
    store.release([claim], 7.0)
    assert store.pending_since() == pytest.approx(6.0)


def test_what_is_taken_in_is_counted(store: Store) -> None:
    store.add([counter("blue", "1"), counter("red")], 5.0)
    store.add([counter("blue", "2"), chat("x", "1")], 5.0)
    store.add([chat("x", "2")], 5.0)

    assert store.take_in() == Intake(changes=5, coalesced=1)
    assert store.take_in() == Intake()
