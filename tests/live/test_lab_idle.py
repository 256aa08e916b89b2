"""Idle clients whose next links fall due together, and a change just then."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
from board import Page, Wired, board, wait_until
from crowd import arriving, first, shows

from grip_edge_middleware import policy

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.timeout(300)]

SEED = 6
CLIENTS = 1_000
TIMEOUT_S = 12
ARRIVING_S = 4.0

in_thread = asyncio.to_thread


@dataclass(frozen=True)
class Outcome:
    delays_s: list[float]
    links: int
    """Next links that the proxy asked the cache for, from the storm on."""
    refused: int
    dropped: int

    def __str__(self) -> str:
        p50, p99 = (1000 * self.delays_s[len(self.delays_s) * n // 100] for n in (50, 99))
        return (
            f"{len(self.delays_s)} of {CLIENTS} told, p50 {p50:.0f}, p99 {p99:.0f},"
            f" max {1000 * self.delays_s[-1]:.0f} ms; {self.links} next links;"
            f" {self.refused} connects refused, {self.dropped} streams dropped"
        )


def outcome(wired: Wired, *, topics: int, in_storm: bool) -> Outcome:
    with board(wired) as served:
        pages = [served.page("board", number) for number in range(topics)]
        return asyncio.run(change_idle(pages, in_storm))


async def change_idle(pages: list[Page], in_storm: bool) -> Outcome:
    asked = pages[0].board.wire.asked
    urls = [pages[number % len(pages)].url for number in range(CLIENTS)]
    async with arriving(urls, within_s=ARRIVING_S, seed=SEED) as crowd:
        await crowd.arrived()
        # The proxy asks once for the first subscribers of a channel, a second after them.
        await asyncio.sleep(2)
        before = len(asked)
        if in_storm:
            await in_thread(wait_until, lambda: len(asked) > before)
        changed = time.monotonic()
        for page in pages:
            page.commit(1)
            page.submit()
        await asyncio.gather(
            *(client.event(shows(1), 30) for client in crowd.clients), return_exceptions=True
        )
        got = [at for client in crowd.clients if (at := first(client, 1)) is not None]
        return Outcome(
            sorted(at - changed for at in got), len(asked) - before, crowd.refused, crowd.dropped
        )


@pytest.mark.parametrize("topics", [1, 20])
def test_a_change_amid_an_idle_storm(
    wired: Wired, topics: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "NEXT_LINK_TIMEOUT_S", TIMEOUT_S)
    storm = outcome(wired, topics=topics, in_storm=True)
    control = outcome(wired, topics=topics, in_storm=False)

    print(f"\n{CLIENTS} idle clients of {topics} topics, their links due together: {storm}")
    print(f"  not due: {control}")
    assert len(storm.delays_s) + storm.dropped >= CLIENTS
    # A thousand are asked for in a second.
    assert storm.delays_s[-1] < 5
