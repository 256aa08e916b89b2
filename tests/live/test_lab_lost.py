"""A publish that the GRIP proxy acknowledged and nobody received, with the settings as they are.

The clients have been told of a change before: a proxy that knows what came last might wait for what
it misses.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from board import Wired, board
from clients import StreamClient, connected
from crowd import first, shows

pytestmark = [pytest.mark.live, pytest.mark.lab]

CONFIRM_AFTER_S = 2.0
TOPICS, CLIENTS_EACH = 20, 10
WAITED_S = 4.0


def delays_s(wired: Wired, kind: str) -> list[float]:
    """Return when each client that was healed had the lost change."""
    with board(wired, confirm_after_s=CONFIRM_AFTER_S) as served:
        pages = [served.page(kind, number) for number in range(TOPICS)]

        def change(value: int) -> None:
            for page in pages:
                page.commit(value)
                page.submit()
            pages[0].flush()

        async def scenario() -> list[float]:
            urls = [page.url for page in pages for _ in range(CLIENTS_EACH)]
            async with connected(map(StreamClient, urls)) as clients:
                await asyncio.to_thread(change, 1)
                for client in clients:
                    await client.event(shows(1))
                lost = time.monotonic()
                served.publishes.swallows = True
                await asyncio.to_thread(change, 2)
                served.publishes.swallows = False
                getting = (client.event(shows(2), WAITED_S) for client in clients)
                await asyncio.gather(*getting, return_exceptions=True)
                return sorted(at - lost for c in clients if (at := first(c, 2)) is not None)

        return asyncio.run(scenario())


def test_a_lost_publish_is_healed(unwired: Wired) -> None:
    healed, control = delays_s(unwired, "board"), delays_s(unwired, "bare")

    count = TOPICS * CLIENTS_EACH
    print(
        f"\npublish lost, {count} clients: {len(healed)} healed, the last after {healed[-1]:.2f} s;"
        f" recovery None: {len(control)} in {WAITED_S:g} s"
    )
    assert (len(healed), len(control)) == (count, 0)
    assert healed[-1] < 3.0
