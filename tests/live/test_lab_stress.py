"""Random times, many writes: nothing old stays in the cache, and who is told finds what was told.

Readers ask the cache without end, whoever is told of a change asks it at once, and the app takes
random times before it reads, to render, and until its answer is there. Seeded, and bounded in time.
"""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from board import Board, Page, Wired, board
from clients import StreamClient, connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.timeout(600)]

SEED = 3
PAGES = 60
WRITES = 2_000
WRITES_PER_S = 80
READERS = 8
READER_PAUSE_S = 0.02
# At most.
BEFORE_READ_S, RENDER_S, TRANSIT_S = 0.05, 0.15, 0.01
CONFIRM_AFTER_S = 2.0


@dataclass
class Run:
    """What one run came to."""

    reads: int = 0
    hits: int = 0
    told: int = 0
    told_but_old: int = 0
    stale: list[Page] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        """In percent."""
        return 100 * self.hits / self.reads

    def __str__(self) -> str:
        return (
            f"{len(self.stale)} of {PAGES} pages stale, {self.told_but_old} of {self.told} told but"
            f" old, {self.hit_rate:.1f} % hits of {self.reads} reads"
        )


def test_random_writes_leave_nothing_old(wired: Wired) -> None:
    """What is told but old is what had passed the gate, and was in transit during the purge.

    Only the confirmation finds that: who was told, and asks at once, is too early for it.
    """
    protected = stress(wired, gate=True, confirm_after_s=CONFIRM_AFTER_S)
    no_transit = stress(wired, gate=True, confirm_after_s=CONFIRM_AFTER_S, transit_s=0)
    open_gate = stress(wired, gate=False, confirm_after_s=CONFIRM_AFTER_S)
    control = stress(wired, gate=False, confirm_after_s=0)

    print(f"\nstress, {WRITES} writes: {protected}")
    print(f"  without transit: {no_transit}")
    print(f"  without the gate: {open_gate}")
    print(f"  without gate and confirmation: {control}")
    assert control.stale
    assert not protected.stale
    assert not no_transit.stale
    assert protected.told_but_old < 0.01 * protected.told < open_gate.told_but_old
    assert no_transit.told_but_old < 0.002 * no_transit.told
    assert protected.hit_rate > open_gate.hit_rate - 5


def stress(
    wired: Wired, *, gate: bool, confirm_after_s: float, transit_s: float = TRANSIT_S
) -> Run:
    run = Run()
    with board(wired, gate=gate, confirm_after_s=confirm_after_s) as served:
        pages = [served.page("board", number) for number in range(PAGES)]
        take_random_times(served, transit_s)
        asyncio.run(write_and_read(pages, run))
        for page in pages:
            page.wait_until_confirmed()
        run.stale = [page for page in pages if page.shown() != value_of(page)]
    return run


def take_random_times(served: Board, transit_s: float) -> None:
    def up_to(limit_s: float) -> Callable[[str], float]:
        chance = random.Random(SEED)
        # What the edge has rendered is rendered one after the other, so that is quick.
        return lambda name: chance.uniform(0, limit_s) if name.startswith("/") else 0.0

    served.before_read.takes_s = up_to(BEFORE_READ_S)
    served.after_read.takes_s = up_to(RENDER_S)
    served.in_transit.takes_s = up_to(transit_s)


async def write_and_read(pages: list[Page], run: Run) -> None:
    async with connected(StreamClient(page.url) for page in pages) as clients:
        with ThreadPoolExecutor(PAGES) as pool:
            refetching = [
                asyncio.create_task(refetch_when_told(page, client, pool, run))
                for page, client in zip(pages, clients, strict=True)
            ]
            with reading(pages, run):
                await asyncio.to_thread(write, pages)
            for page, client in zip(pages, clients, strict=True):
                await client.event(shows(value_of(page)), timeout_s=20)
            for task in refetching:
                task.cancel()
            await asyncio.gather(*refetching, return_exceptions=True)


def write(pages: list[Page]) -> None:
    chance = random.Random(SEED)
    tick = threading.Event()
    for _ in range(WRITES):
        page = chance.choice(pages)
        page.commit(value_of(page) + 1)
        page.submit()
        tick.wait(chance.expovariate(WRITES_PER_S))
    pages[0].flush()


async def refetch_when_told(
    page: Page, client: StreamClient, pool: ThreadPoolExecutor, run: Run
) -> None:
    loop = asyncio.get_running_loop()
    told = 0
    while True:
        event = await client.event(newer_than(told), timeout_s=600)
        told = int(event.data)
        shown = await loop.run_in_executor(pool, page.shown)
        run.told += 1
        run.told_but_old += shown < told


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


def shows(value: int) -> Callable[[str], bool]:
    return lambda data: data == str(value)


def newer_than(value: int) -> Callable[[str], bool]:
    return lambda data: int(data) > value
