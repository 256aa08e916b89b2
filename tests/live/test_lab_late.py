"""Cached pages that are older than the subscription they open, by the thousand.

1,020 clients come to 20 topics within two seconds. Their pages leave the cache at once and take up
to half a second to the GRIP proxy, and in the middle every topic changes.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from board import DEFAULT_S, Page, Wired, board
from clients import StreamClient, connected
from crowd import Crowd, arriving, first

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from wire import Wire

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.timeout(300)]

SEED = 4
TOPICS = 20
CLIENTS_EACH = 51
ARRIVING_S = 2.0
IN_FLIGHT_S = 0.5
STUCK_AFTER_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What became of the crowd, five seconds after the change."""

    late: int
    stuck: int
    told_twice: int
    slowest_s: float
    refused: int
    dropped: int

    def __str__(self) -> str:
        return (
            f"{self.late} late, {self.stuck} without the last value after {STUCK_AFTER_S:g} s,"
            f" {self.told_twice} told twice, slowest heal {self.slowest_s:.2f} s;"
            f" {self.refused} connects refused, {self.dropped} streams dropped"
        )


def outcome(
    wired: Wired,
    kind: str = "board",
    *,
    confirm_after_s: list[float],
    in_flight_s: float = IN_FLIGHT_S,
    holds_links: bool = False,
) -> Outcome:
    with board(wired, confirm_after_s=confirm_after_s) as served:
        pages = [served.page(kind, number) for number in range(TOPICS)]
        with in_flight(wired.wire, in_flight_s):
            return asyncio.run(change_amid_arrivals(pages, holds_links))


async def change_amid_arrivals(pages: list[Page], holds_links: bool) -> Outcome:
    urls = [page.url for page in pages for _ in range(CLIENTS_EACH)]
    async with (
        early_clients(pages, holds_links) as links,
        # Many are connecting when pages take that long.
        arriving(urls, within_s=ARRIVING_S, seed=SEED, at_once=len(urls)) as crowd,
    ):
        await asyncio.sleep(ARRIVING_S / 2)
        for page in pages:
            page.commit(1)
            page.submit()
        await asyncio.to_thread(pages[0].flush)
        changed = time.monotonic()
        links.close()
        await crowd.arrived()
        await crowd.all_have(1, changed + STUCK_AFTER_S - time.monotonic())
        return outcome_of(crowd, changed)


@asynccontextmanager
async def early_clients(pages: list[Page], holds_links: bool) -> AsyncIterator[ExitStack]:
    """One client a page. What the proxy asks for it after a second is held until it is let go."""
    with ExitStack() as links:
        held = [links.enter_context(page.board.wire.answers.holding(page.topic)) for page in pages]
        async with connected(StreamClient(page.url) for page in pages):
            if holds_links:
                for link in held:
                    await asyncio.to_thread(link.wait)
            else:
                links.close()
            yield links


@contextmanager
def in_flight(wire: Wire, limit_s: float) -> Iterator[None]:
    """Have pages take a while from the cache to the proxy; next links are as quick as they are."""
    chance = random.Random(SEED)
    passing = wire.answers.takes_s
    wire.answers.takes_s = lambda path: (
        0.0 if path.startswith("/.grip-edge/") else chance.uniform(0, limit_s)
    )
    try:
        yield
    finally:
        wire.answers.takes_s = passing


def outcome_of(crowd: Crowd, changed: float) -> Outcome:
    late = [c for c in crowd.clients if c.events[0].data == "0" and c.events[0].at > changed]
    healed = [(c.events[0].at, at) for c in late if (at := first(c, 1)) is not None]
    return Outcome(
        late=len(late),
        stuck=crowd.without(1),
        told_twice=crowd.told_twice(),
        slowest_s=max((at - came for came, at in healed), default=0.0),
        refused=crowd.refused,
        dropped=crowd.dropped,
    )


def test_late_subscriptions_are_healed(wired: Wired) -> None:
    """By the first marker who is held by then, and by the second the others."""
    control = outcome(wired, "bare", confirm_after_s=DEFAULT_S)
    healed = outcome(wired, confirm_after_s=DEFAULT_S)
    joined = outcome(wired, confirm_after_s=DEFAULT_S, holds_links=True)
    soon = outcome(wired, confirm_after_s=[0.5, 2.0])
    quick = outcome(wired, confirm_after_s=[0.5, 2.0], in_flight_s=0.1)

    print(f"\nlate subscription, {TOPICS} topics, {TOPICS * CLIENTS_EACH} clients:")
    print(f"  recovery None: {control}")
    print(f"  confirm_after [1, 2]: {healed}")
    print(f"  confirm_after [1, 2], next links held across the change: {joined}")
    print(f"  confirm_after [0.5, 2]: {soon}")
    print(f"  confirm_after [0.5, 2], pages at most 0.1 s in flight: {quick}")
    assert control.stuck > 0
    assert [run.stuck for run in (healed, joined, soon, quick)] == [0, 0, 0, 0]
    assert max(run.slowest_s for run in (healed, joined, soon, quick)) < 3.5
