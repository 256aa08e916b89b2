"""Many topics with few clients each: what recovery costs the delivery.

The GRIP proxy asks the next link of every topic a second after its first subscriber, and delivers
nothing to a client that it asks for. So the changes come just then.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass

import pytest
from board import DEFAULT_S, Page, Wired, board
from crowd import Crowd, arriving, first

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.timeout(300)]

SEED = 5
TOPICS = 500
CLIENTS_EACH = 4
ARRIVING_S = 2.0
CHANGES_AFTER_S = 1.0
BATCHES = 5
ROUNDS = 3
BETWEEN_BATCHES_S = 0.2
LOST_AFTER_S = 15.0


@dataclass(frozen=True)
class Outcome:
    """How long one change of each topic took to its clients, in seconds from its commit."""

    delays_s: list[float]
    lost: int
    refused: int
    dropped: int
    links: int
    """Next links that the app was asked for."""

    def percentile(self, percent: float) -> float:
        return self.delays_s[min(len(self.delays_s) - 1, int(len(self.delays_s) * percent / 100))]

    def __str__(self) -> str:
        p50, p99, longest = (1000 * self.percentile(percent) for percent in (50, 99, 100))
        return (
            f"p50 {p50:.0f}, p99 {p99:.0f}, max {longest:.0f} ms, {self.lost} lost;"
            f" {self.refused} connects refused, {self.dropped} streams dropped,"
            f" {self.links} next links"
        )


def outcome(wired: Wired, kind: str) -> Outcome:
    with board(wired, confirm_after_s=DEFAULT_S) as served:
        # The first request of all is slower: the HTTP client is made for it.
        served.page(kind, "first").change(1)
        pages = [served.page(kind, number) for number in range(TOPICS)]
        return asyncio.run(change_each(pages))


async def change_each(pages: list[Page]) -> Outcome:
    urls = [page.url for page in pages for _ in range(CLIENTS_EACH)]
    async with arriving(urls, within_s=ARRIVING_S, seed=SEED) as crowd:
        await crowd.arrived()
        await asyncio.sleep(CHANGES_AFTER_S)
        changed = await asyncio.to_thread(change_all, pages)
        await crowd.all_have(1, LOST_AFTER_S)
        return outcome_of(crowd, [at for at in changed for _ in range(CLIENTS_EACH)], pages)


def change_all(pages: list[Page]) -> list[float]:
    """Change all, some at a time; return when each was committed."""
    changed = [0.0] * len(pages)
    for batch in range(BATCHES):
        for number in range(batch, len(pages), BATCHES):
            pages[number].commit(1)
            pages[number].submit()
            changed[number] = time.monotonic()
        time.sleep(BETWEEN_BATCHES_S)
    return changed


def outcome_of(crowd: Crowd, changed: list[float], pages: list[Page]) -> Outcome:
    got = [
        (at - since, client.is_ended)
        for client, since in zip(crowd.clients, changed, strict=True)
        if (at := first(client, 1)) is not None
    ]
    dropped_before = sum(c.is_ended and first(c, 1) is None for c in crowd.clients)
    return Outcome(
        delays_s=sorted(delay_s for delay_s, _ in got),
        lost=len(crowd.clients) - len(got) - dropped_before,
        refused=crowd.refused,
        dropped=crowd.dropped,
        links=sum(path.startswith("/.grip-edge/next/") for path in pages[0].board.served),
    )


def test_many_topics_are_delivered_as_soon_with_recovery(unwired: Wired) -> None:
    """In most rounds: now and then a batch waits for what the proxy asks for first subscribers."""
    rounds = [(outcome(unwired, "board"), outcome(unwired, "bare")) for _ in range(ROUNDS)]

    for recovering, control in rounds:
        print(f"\n{TOPICS} topics, {CLIENTS_EACH} clients each: {recovering}")
        print(f"  recovery None: {control}")
        assert (recovering.lost, control.lost) == (0, 0)
    ratios = [recovering.percentile(99) / control.percentile(99) for recovering, control in rounds]
    print(
        f"  99 % with recovery takes {', '.join(f'{ratio:.2f}' for ratio in ratios)} times as long"
    )
    assert statistics.median(ratios) <= 2
