"""A shared store whose shelf does not answer, by what becomes of what it was asked then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from grip_edge_middleware.changes import Change
from grip_edge_middleware.errors import StoreError
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.stores import Claim
from grip_edge_middleware.stores.codec import Codec
from grip_edge_middleware.stores.records import Records, Shelf
from grip_edge_middleware.stores.redis import RedisShelf
from grip_edge_middleware.stores.shared import SharedStore
from grip_edge_middleware.stores.sqlite import SQLiteShelf
from grip_edge_middleware.topics import SITE_KEY
from tests.recording import Clock
from tests.stores import redis_server
from tests.stores.redis_server import RedisServer

T = TypeVar("T")

SETTINGS = Settings.parse({"grip_url": None, "topics": {"list": {"routes": ["/list"]}}}, {})
[LIST] = SETTINGS.topics
CHANGE = Change(LIST.template.fill({}), LIST)
PLENTY = 10


class Unheard:
    """A shelf from which no answer to a write comes back, whether it was made or not."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._is_made: bool | None = None

    @contextmanager
    def losing_answers(self, *, is_made: bool) -> Iterator[None]:
        self._is_made = is_made
        yield
        self._is_made = None

    def write(self, keys: Iterable[str], step: Callable[[Records], T]) -> T:
        if self._is_made is None:
            return self._shelf.write(keys, step)
        if self._is_made:
            self._shelf.write(keys, step)
        raise StoreError("it says nothing")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shelf, name)


class Shared:
    """A store with something to send, its shelf, and the clock of both."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        codec = Codec(SETTINGS.topics, throttle_s=1.0)
        self.shelf = Unheard(SQLiteShelf(path, codec, clock=self.clock.wall))
        self.store = SharedStore(cast("Shelf", self.shelf), clock=self.clock)
        self.change()

    def change(self) -> None:
        self.store.add([CHANGE], self.clock.now)
        self.store.take_in()

    def claim(self) -> list[str]:
        """Claim what is due a second later, much sooner than a lease ends, and keep it."""
        self.clock.now += 1.0
        self.store.take_in()
        self.claimed = self.store.claim(self.clock.now, limit=PLENTY)
        return [claim.topic.name for claim in self.claimed]

    def release(self) -> None:
        self.store.release(self.claimed, self.clock.now)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    shared = Shared(tmp_path / "store")
    yield shared
    shared.store.close()


MADE = pytest.mark.parametrize("is_made", [True, False], ids=["made", "not made"])


@MADE
def test_a_claim_of_which_nobody_heard_is_claimed_when_the_shelf_is_back(
    shared: Shared, is_made: bool
) -> None:
    with shared.shelf.losing_answers(is_made=is_made), pytest.raises(StoreError):
        shared.claim()

    assert shared.claim() == ["list"]
    assert shared.store.pending() == 1


@MADE
def test_what_was_delivered_is_not_sent_again_since_its_release_was_not_heard_of(
    shared: Shared, is_made: bool
) -> None:
    shared.claim()
    with shared.shelf.losing_answers(is_made=is_made):
        shared.release()

    shared.clock.now += 3600.0
    assert shared.claim() == []


@MADE
def test_the_next_change_does_not_wait_for_a_release_that_was_not_heard_of(
    shared: Shared, is_made: bool
) -> None:
    shared.claim()
    with shared.shelf.losing_answers(is_made=is_made):
        shared.release()

    shared.change()
    assert shared.claim() == ["list"]


@MADE
def test_a_claim_that_was_put_back_unheard_is_claimed_again(shared: Shared, is_made: bool) -> None:
    shared.claim()
    with shared.shelf.losing_answers(is_made=is_made):
        shared.store.postpone(shared.claimed[0], shared.clock.now)

    assert shared.claim() == ["list"]


# --- what was brought to it is lost -----------------------------------------------------------


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server of one's own."""
    with redis_server.running() as server:
        yield server


@pytest.fixture
def lossy(redis: RedisServer) -> Iterator[SharedStore]:
    """A store to which a change was brought, on a server with nothing on disk."""
    shelf = RedisShelf(redis.url, Codec(SETTINGS.topics, throttle_s=1.0))
    store = SharedStore(shelf, when_lost=[Change.of_site(SETTINGS.topics)])
    store.add([CHANGE], 0.0)
    store.take_in()
    yield store
    store.close()


def claim_at_once(store: SharedStore) -> list[Claim]:
    return store.claim(time.monotonic(), limit=PLENTY, everything=True)


def test_everything_counts_as_changed_when_what_was_pending_is_lost(
    lossy: SharedStore, redis: RedisServer
) -> None:
    redis.restart_empty()
    before = lossy.delivered()
    lossy.take_in()
    [claim] = claim_at_once(lossy)
    lossy.release([claim], time.monotonic())

    assert claim.topic.name == SITE_KEY
    assert before < lossy.submitted()
    assert lossy.delivered() == lossy.submitted()


def test_nothing_counts_as_changed_when_all_was_delivered_that_is_lost(
    lossy: SharedStore, redis: RedisServer
) -> None:
    lossy.release(claim_at_once(lossy), time.monotonic())
    assert lossy.delivered() == lossy.submitted()
    redis.restart_empty()
    lossy.take_in()

    assert claim_at_once(lossy) == []


def test_another_process_knows_since_when_by_its_own_clock(tmp_path: Path) -> None:
    wall, codec = Clock(), Codec(SETTINGS.topics, throttle_s=1.0)
    one, other = (
        SharedStore(SQLiteShelf(tmp_path / "s", codec, clock=wall.wall), clock=clock)
        for clock in (lambda: wall.now, lambda: wall.now + 500.0)
    )
    one.add([CHANGE], wall.now)
    wall.now += 2.0  # the shelf is asked late
    one.take_in()
    wall.now += 1.0
    [claim] = other.claim(wall.now + 500.0, limit=PLENTY)

    assert wall.now + 500.0 - claim.since.at == pytest.approx(3.0)
    assert one.pending_since() == pytest.approx(wall.now - 3.0)
    one.close()
    other.close()
