"""Random times, many writes: nothing old stays in the cache, nor with who fetches when it is told.

Readers ask the cache without end, whoever is told of a change asks it at once, and the app takes
random times before it reads, to render, and until its answer is there. Seeded, and bounded in time.

A fetch can be too early for the confirmation: what had passed the gate was still in transit during
the purge. So topics whose messages tell clients to fetch have the last one repeated: `refetch`.
"""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from board import DEFAULT_S, Board, Page, Wired, board, wait_until
from clients import StreamClient, connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.timeout(600)]

SEED = 3
PAGES = 200
WRITES_EACH = 10
WRITES_PER_S = 80
READERS = 8
READER_PAUSE_S = 0.02
# At most.
BEFORE_READ_S, RENDER_S, TRANSIT_S = 0.05, 0.15, 0.01


@dataclass
class Run:
    """What one run came to."""

    reads: int = 0
    hits: int = 0
    fetches: int = 0
    """By who was told of a change."""
    old_fetches: int = 0
    """Those that got something older than what was told."""
    old_clients: int = 0
    """Those whose last fetch was old, when all was told and confirmed."""
    stale_pages: int = 0
    """Those that the cache shows old then."""

    @property
    def hit_rate(self) -> float:
        """In percent."""
        return 100 * self.hits / self.reads

    def __str__(self) -> str:
        return (
            f"{self.old_fetches} of {self.fetches} fetches old at first, {self.old_clients} of"
            f" {PAGES} clients left old, {self.stale_pages} of {PAGES} pages stale,"
            f" {self.hit_rate:.1f} % hits of {self.reads} reads"
        )


def test_random_writes_leave_nothing_old(wired: Wired) -> None:
    protected = stress(wired, gate=True, confirm_after_s=DEFAULT_S)
    open_gate = stress(wired, gate=False, confirm_after_s=DEFAULT_S)
    control = stress(wired, gate=False, confirm_after_s=[])

    print(f"\nstress, {PAGES * WRITES_EACH} writes: {protected}")
    print(f"  without the gate: {open_gate}")
    print(f"  without gate and confirmation: {control}")
    assert (protected.old_clients, protected.stale_pages) == (0, 0)
    assert control.old_clients + control.stale_pages > 0
    assert protected.old_fetches < open_gate.old_fetches
    assert protected.hit_rate > open_gate.hit_rate - 5


def stress(wired: Wired, *, gate: bool, confirm_after_s: list[float]) -> Run:
    run = Run()
    with board(wired, gate=gate, confirm_after_s=confirm_after_s) as served:
        pages = [served.page("refetch", number) for number in range(PAGES)]
        take_random_times(served)
        asyncio.run(write_and_read(pages, run))
        run.stale_pages = sum(page.shown() != value_of(page) for page in pages)
    return run


def take_random_times(served: Board) -> None:
    def up_to(limit_s: float) -> Callable[[str], float]:
        chance = random.Random(SEED)
        # What the edge has rendered is rendered one after the other, so that is quick.
        return lambda name: chance.uniform(0, limit_s) if name.startswith("/") else 0.0

    served.before_read.takes_s = up_to(BEFORE_READ_S)
    served.after_read.takes_s = up_to(RENDER_S)
    served.in_transit.takes_s = up_to(TRANSIT_S)


async def write_and_read(pages: list[Page], run: Run) -> None:
    async with connected(StreamClient(page.url) for page in pages) as clients:
        with ThreadPoolExecutor(PAGES) as pool:
            watchers = [Watcher(*of, pool, run) for of in zip(pages, clients, strict=True)]
            watching = [asyncio.create_task(watcher.watch()) for watcher in watchers]
            with reading(pages, run):
                await asyncio.to_thread(write, pages)
            await asyncio.to_thread(wait_until_quiet, watchers)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
    run.old_clients = sum(watcher.shown != value_of(watcher.page) for watcher in watchers)


def write(pages: list[Page]) -> None:
    chance = random.Random(SEED)
    tick = threading.Event()
    order = pages * WRITES_EACH
    chance.shuffle(order)
    for page in order:
        page.commit(value_of(page) + 1)
        page.submit()
        tick.wait(chance.expovariate(WRITES_PER_S))
    pages[0].flush()


def wait_until_quiet(watchers: list[Watcher]) -> None:
    for watcher in watchers:
        watcher.page.wait_until_confirmed()
    for watcher in watchers:
        wait_until(watcher.has_heeded_all)


@dataclass
class Watcher:
    """A client that fetches its page whenever it is told that it has changed."""

    page: Page
    client: StreamClient
    pool: ThreadPoolExecutor
    run: Run
    shown: int = 0
    """The value of its last fetch."""
    heeded: int = 0

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            event = await self.client.event_at(self.heeded, timeout_s=600)
            self.shown = await loop.run_in_executor(self.pool, self.page.shown)
            self.run.fetches += 1
            self.run.old_fetches += self.shown < int(event.data)
            self.heeded += 1

    def has_heeded_all(self) -> bool:
        """Whether it has been told what was published last, and has fetched its page since."""
        last = self.page.board.publishes.with_name(self.page.topic)[-1]
        events = self.client.events
        return events[-1].at >= last.arrived and self.heeded == len(events)


@contextmanager
def reading(pages: list[Page], run: Run) -> Iterator[None]:
    is_over = threading.Event()
    counting = threading.Lock()

    def read(seed: int) -> None:
        chance = random.Random(seed)
        while not is_over.wait(chance.uniform(0, READER_PAUSE_S)):
            is_hit = chance.choice(pages).fetch().headers["X-Cache"] == "HIT"
            with counting:
                run.reads += 1
                run.hits += is_hit

    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(read, seed) for seed in range(READERS)]
        try:
            yield
        finally:
            is_over.set()
    for reader in readers:
        reader.result()


def value_of(page: Page) -> int:
    return page.board.values.get(page.path, 0)
