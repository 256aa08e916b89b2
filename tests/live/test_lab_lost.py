"""A publish that the GRIP proxy acknowledged and nobody received, with the settings as they are.

The clients have been told of a change before: a proxy that knows what came last might wait for what
it misses.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from board import DEFAULT_S, Wired, board
from clients import StreamClient, connected
from crowd import first, shows

pytestmark = [pytest.mark.live, pytest.mark.lab]

CLIENTS = 200
WAITED_S = 4.0


def delays_s(wired: Wired, kind: str, topics: int) -> list[float]:
    """Return when each client that was healed had the lost change."""
    with board(wired, confirm_after_s=DEFAULT_S) as served:
        pages = [served.page(kind, number) for number in range(topics)]

        def change(value: int) -> None:
            for page in pages:
                page.commit(value)
                page.submit()
            pages[0].flush()

        async def scenario() -> list[float]:
            urls = [pages[number % topics].url for number in range(CLIENTS)]
            async with connected(map(StreamClient, urls)) as clients:
                await asyncio.to_thread(change, 1)
                for client in clients:
                    await client.event(shows(1))
                # The proxy's own question, a second after a first subscriber, is over then.
                for page in pages:
                    await asyncio.to_thread(page.wait_until_confirmed)
                lost = time.monotonic()
                served.publishes.swallows = True
                await asyncio.to_thread(change, 2)
                served.publishes.swallows = False
                getting = (client.event(shows(2), WAITED_S) for client in clients)
                await asyncio.gather(*getting, return_exceptions=True)
                return sorted(at - lost for c in clients if (at := first(c, 2)) is not None)

        return asyncio.run(scenario())


# The links of many topics are asked in turn, ten of the shared URIs a second.
@pytest.mark.parametrize(("topics", "bound_s"), [(1, 3.0), (20, 4.0)])
def test_a_lost_publish_is_healed(unwired: Wired, topics: int, bound_s: float) -> None:
    healed, control = (delays_s(unwired, kind, topics) for kind in ("board", "bare"))

    print(
        f"\npublish of {topics} topics lost: {len(healed)} of {CLIENTS} clients healed, the last"
        f" after {max(healed):.2f} s; recovery None: {len(control)} in {WAITED_S:g} s"
    )
    assert (len(healed), len(control)) == (CLIENTS, 0)
    assert max(healed) < bound_s
