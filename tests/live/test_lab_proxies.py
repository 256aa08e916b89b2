"""Two GRIP proxies in front of one cache: each gets every publish, and each heals what it lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from board import DEFAULT_S, Board, Page, Wired, board
from clients import StreamClient, connected
from crowd import first, shows
from launch import Edge

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.timeout(300)]

CLIENTS = 50
HEALED_WITHIN_S = 5.0

in_thread = asyncio.to_thread


@dataclass(frozen=True)
class Both:
    served: Board
    edges: tuple[Edge, Edge]

    @asynccontextmanager
    async def clients(self, page: Page) -> AsyncIterator[list[list[StreamClient]]]:
        """As many clients at each proxy, who have their page."""
        urls = [edge.url + page.path for edge in self.edges for _ in range(CLIENTS)]
        async with connected(map(StreamClient, urls)) as clients:
            for client in clients:
                await client.event(shows(0))
            yield [clients[:CLIENTS], clients[CLIENTS:]]


@pytest.fixture
def both(wired: Wired) -> Iterator[Both]:
    # A cache of its own comes with it, which nobody asks.
    with (
        Edge(proxied_port=wired.wire.port) as other,
        board(wired, other, confirm_after_s=DEFAULT_S) as served,
    ):
        yield Both(served, (wired.edge, other))


async def healed(clients: list[StreamClient], value: int) -> int:
    """Count who gets a value in time."""
    getting = (client.event(shows(value), HEALED_WITHIN_S) for client in clients)
    await asyncio.gather(*getting, return_exceptions=True)
    return sum(first(client, value) is not None for client in clients)


async def both_healed(clients: list[list[StreamClient]], value: int) -> list[int]:
    return list(await asyncio.gather(*(healed(own, value) for own in clients)))


Scenario = Callable[[Page], Coroutine[Any, Any, list[int]]]


def played(both: Both, what: str, scenario: Scenario) -> tuple[list[int], list[int]]:
    """Play a scenario with recovery and without; return who got the value, at each proxy."""
    told, control = (
        asyncio.run(scenario(both.served.page(kind, "proxies"))) for kind in ("board", "bare")
    )
    print(f"\ntwo proxies, {what}: {told} of {CLIENTS} each; recovery None: {control}")
    return told, control


def test_both_proxies_are_told(both: Both) -> None:
    async def scenario(page: Page) -> list[int]:
        async with both.clients(page) as clients:
            await in_thread(page.change, 1)
            return await both_healed(clients, 1)

    told, control = played(both, "a change", scenario)

    assert told == control == [CLIENTS, CLIENTS]


def test_a_publish_that_one_proxy_lost(both: Both) -> None:
    [other] = both.served.other_publishes

    async def scenario(page: Page) -> list[int]:
        async with both.clients(page) as clients:
            other.swallows = True
            await in_thread(page.change, 1)
            other.swallows = False
            return await both_healed(clients, 1)

    told, control = played(both, "a publish lost at the second", scenario)

    assert told == [CLIENTS, CLIENTS]
    assert control == [CLIENTS, 0]


def test_pages_in_transit_to_both_proxies(both: Both) -> None:
    async def scenario(page: Page) -> list[int]:
        urls = [edge.url + page.path for edge in both.edges for _ in range(CLIENTS)]
        clients = [StreamClient(url) for url in urls]
        with both.served.wire.answers.holding(page.path, len(clients)) as held:
            connecting = asyncio.gather(*(client.connect() for client in clients))
            await in_thread(held.wait, len(clients))
            await in_thread(page.change, 1)
        await connecting
        counts = await both_healed([clients[:CLIENTS], clients[CLIENTS:]], 1)
        await asyncio.gather(*(client.close() for client in clients))
        return counts

    told, control = played(both, "pages in transit", scenario)

    assert told == [CLIENTS, CLIENTS]
    assert control == [0, 0]
