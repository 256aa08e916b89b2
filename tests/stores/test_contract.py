"""What every Store does. Add a store to `STORES` and all of this holds for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from grip_edge_middleware.changes import Change, encode
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.stores import Claim, Store
from grip_edge_middleware.stores.memory import MemoryStore

MAX_PENDING = 5
MakeStore = Callable[[], Store]
STORES: dict[str, MakeStore] = {
    "memory": lambda: MemoryStore(max_pending=MAX_PENDING, wall_clock=lambda: 1_790_000_000.0),
}

SETTINGS = Settings.parse(
    {
        "throttle": 1.0,
        "topics": {
            "counter-{name}": {"routes": ["/counters/<name>/"]},
            "chat-{name}": {"routes": ["/chats/<name>/"], "coalesce": False},
        },
    },
    {},
)
COUNTER, CHAT = SETTINGS.topics


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    return STORES[request.param]()


def counter(name: str, value: str | None = None) -> Change:
    return _change(COUNTER, name, value)


def chat(name: str, value: str) -> Change:
    return _change(CHAT, name, value)


def _change(topic: Any, name: str, value: str | None) -> Change:
    message = None if value is None else encode(value)
    return Change(topic.template.fill({"name": name}), topic, message)


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


def test_a_change_after_postponing_prevails_too(store: Store) -> None:
    store.add([counter("blue", "1")], 0.0)
    [claim] = store.claim(0.0, limit=10)
    store.postpone(claim, 30.0)
    store.add([counter("blue", "2")], 2.0)

    [claim] = store.claim(2.0, limit=10)
    assert values(claim) == ["2"]
    assert claim.missing is None


# --- room and versions ------------------------------------------------------------------------


def test_changes_beyond_max_pending_are_refused(store: Store) -> None:
    refused = store.add([counter(str(number)) for number in range(MAX_PENDING + 3)], 0.0)

    assert refused == 3
    assert store.pending() == MAX_PENDING


def test_a_full_store_still_takes_changes_of_what_is_pending(store: Store) -> None:
    store.add([counter(str(number)) for number in range(MAX_PENDING)], 0.0)

    assert store.add([counter("0", "new")], 0.0) == 0


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


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_two_processes_never_give_out_the_same_version(make: MakeStore) -> None:
    """A proxy drops an item whose id it had lately: two workers that save at once must differ."""
    one, other = make(), make()
    one.add([counter("blue", "1")], 0.0)
    other.add([counter("blue", "2")], 0.0)

    [first], [second] = one.claim(0.0, limit=1), other.claim(0.0, limit=1)
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

    def add() -> None:
        for number in range(500):
            while store.add([chat("x", str(number))], float(number)):
                pass

    def claim() -> None:
        while not is_over.is_set() or store.pending():
            claims = store.claim(0.0, limit=10, everything=True)
            claimed.extend(claims)
            store.release(claims, 0.0)

    adding = [threading.Thread(target=add) for _ in range(4)]
    claiming = [threading.Thread(target=claim) for _ in range(2)]
    for thread in adding + claiming:
        thread.start()
    for thread in adding:
        thread.join()
    is_over.set()
    for thread in claiming:
        thread.join()

    assert sum(len(claim.publications) for claim in claimed) == 2_000


# --- any sequence of calls --------------------------------------------------------------------


class StoreMachine(RuleBasedStateMachine):
    """Random calls against a model that knows, per topic, what must still be delivered."""

    make: MakeStore = staticmethod(STORES["memory"])

    def __init__(self) -> None:
        super().__init__()
        self.store = self.make()
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
        is_room = key in self.waiting or len(self.waiting) < MAX_PENDING
        assert self.store.add([change], self.now) == (not is_room)
        if is_room:
            kept = [] if coalesce else self.waiting.get(key, [])
            self.waiting[key] = [*kept, str(self.count)]

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 5.0]))
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
        last = self.last_claimed.get(key)
        if last is not None and not everything and key not in self.was_postponed:
            assert self.now >= last + claim.settings.throttle
        self.was_postponed.discard(key)
        self.last_claimed[key] = self.now
        self.claims[key] = claim

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.claims)))
        self.store.release([self.claims.pop(key)], self.now)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), seconds=st.sampled_from([0.1, 2.0]))
    def postpone(self, data: st.DataObject, seconds: float) -> None:
        key = data.draw(st.sampled_from(sorted(self.claims)))
        claim = self.claims.pop(key)
        self.store.postpone(claim, self.now + seconds)
        newer = self.waiting.get(key, [])
        older = [] if newer and claim.settings.coalesce else values(claim)
        self.waiting[key] = older + newer
        self.was_postponed.add(key)

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


TestAnySequenceOfCalls = StoreMachine.TestCase
TestAnySequenceOfCalls.settings = hypothesis_settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
