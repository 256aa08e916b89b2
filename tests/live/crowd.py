"""Many stream clients that come when they like, try again when they are refused, and are counted.

async with arriving(urls, within_s=2.0, seed=3) as crowd:
    ...
    await crowd.arrived()
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from clients import CONNECTS_AT_ONCE, StreamClient

TRY_AGAIN_AFTER_S = 0.5
CONNECT_WITHIN_S = 30.0


@dataclass
class Crowd:
    """Clients in the order of their URLs; those that are there so far."""

    _slots: asyncio.Semaphore
    by_number: dict[int, StreamClient] = field(default_factory=dict)
    refused: int = 0
    """Connects that were answered by an error, or not at all, and tried again."""
    _arriving: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def clients(self) -> list[StreamClient]:
        return [client for _, client in sorted(self.by_number.items())]

    @property
    def dropped(self) -> int:
        """Streams that the GRIP proxy ended."""
        return sum(client.is_ended for client in self.clients)

    async def arrived(self) -> None:
        """Wait until all are there."""
        await asyncio.gather(*self._arriving)

    def without(self, value: int) -> int:
        """Count the clients that have not got a value."""
        return sum(first(client, value) is None for client in self.clients)

    def told_twice(self) -> int:
        """Count the events that say what their client had been told already."""
        told = [[event.data for event in client.events] for client in self.clients]
        return sum(len(values) - len(set(values)) for values in told)

    async def all_have(self, value: int, timeout_s: float) -> None:
        """Wait until all have got a value, or the time is over."""
        getting = [asyncio.create_task(c.event(shows(value), timeout_s)) for c in self.clients]
        await asyncio.gather(*getting, return_exceptions=True)

    async def _arrive(self, number: int, url: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        async with asyncio.timeout(CONNECT_WITHIN_S):
            while (client := await self._connect(url)) is None:
                self.refused += 1
                await asyncio.sleep(TRY_AGAIN_AFTER_S)
        self.by_number[number] = client

    async def _connect(self, url: str) -> StreamClient | None:
        async with self._slots:
            return await connect(url)


@asynccontextmanager
async def arriving(
    urls: Sequence[str], *, within_s: float, seed: int, at_once: int = CONNECTS_AT_ONCE
) -> AsyncIterator[Crowd]:
    """Have one client come for each URL, at a random time within `within_s`.

    At most `at_once` connect at a time.
    """
    chance = random.Random(seed)
    crowd = Crowd(asyncio.Semaphore(at_once))
    crowd._arriving += (
        asyncio.create_task(crowd._arrive(number, url, chance.uniform(0, within_s)))
        for number, url in enumerate(urls)
    )
    try:
        yield crowd
    finally:
        for arrival in crowd._arriving:
            arrival.cancel()
        await asyncio.gather(*crowd._arriving, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in crowd.clients))


async def connect(url: str) -> StreamClient | None:
    """Return a client that is held, None if it was refused."""
    client = StreamClient(url)
    try:
        await client.connect()
        if client.status == 200:
            return client
    except (OSError, EOFError):
        pass
    await client.close()
    return None


def shows(value: int) -> Callable[[str], bool]:
    return lambda data: data == str(value)


def first(client: StreamClient, value: int) -> float | None:
    """Return when a client first got a value."""
    return next((event.at for event in client.events if event.data == str(value)), None)
