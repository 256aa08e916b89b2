"""Streams from a cache have no gaps: versions, next links and markers on real Pushpin and Varnish.

What may go wrong is made to: a page that was read from the cache before the purge and arrives after
the publish, a publish that reaches nobody. Each has its control without recovery.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from clients import StreamClient, connected
from launch import Edge
from servers import wait_until_reached, wsgi_server
from tap import Tap

from grip_edge_middleware import GripEdge

pytestmark = pytest.mark.live

CONFIRM_AFTER_S = 0.5
HEALED_WITHIN_S = 3.5


class Board:
    """An app whose streams show a value each, behind the edge, with taps on what is sent."""

    def __init__(self, edge: Edge, purges: Tap, publishes: Tap, recovery: str | None) -> None:
        self.edge = edge
        self.purges = purges
        self.publishes = publishes
        self.values: dict[str, int] = {}
        self.served: list[str] = []
        self.grip_edge = GripEdge(
            settings={
                "cdn": f"varnish://127.0.0.1:{purges.port}",
                "grip_url": f"http://127.0.0.1:{publishes.port}",
                "confirm_after": CONFIRM_AFTER_S,
                "recovery": recovery,
                "topics": {
                    "board-{n}": {"routes": ["/board/<n>"], "hold": "stream", "throttle": 0}
                },
            }
        )
        self.face = self.grip_edge.wsgi(self.app)

    def app(self, environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [b"data: %d\n\n" % self.values.get(environ["PATH_INFO"], 0)]

    def counting(self, environ: Any, start_response: Any) -> Any:
        self.served.append(environ["PATH_INFO"])
        return self.face(environ, start_response)

    def url(self, name: str) -> str:
        return f"{self.edge.url}/board/{name}"

    def change(self, name: str, value: int) -> None:
        self.values[f"/board/{name}"] = value
        self.grip_edge.submit("board-{n}", n=name)
        assert self.grip_edge.flush(10)


@contextmanager
def board(edge: Edge, *, recovery: str | None = "next-link") -> Iterator[Board]:
    with ExitStack() as stack:
        purges = stack.enter_context(Tap(edge.cache_port))
        publishes = stack.enter_context(Tap(edge.control_port))
        served = Board(edge, purges, publishes, recovery)
        stack.callback(served.grip_edge.close)
        stack.enter_context(wsgi_server(served.counting, edge.app_port))
        wait_until_reached(f"{edge.cache_url}/board/ready")
        yield served


def shows(value: int) -> Any:
    return lambda data: data == str(value)


async def healed(clients: list[StreamClient], value: int) -> list[float]:
    """Return when each client got the value, for those that got it in time."""
    arrived = []
    deadline = time.monotonic() + HEALED_WITHIN_S
    for client in clients:
        try:
            left_s = max(0.01, deadline - time.monotonic())
            arrived.append((await client.event(shows(value), left_s)).at)
        except TimeoutError:
            continue
    return arrived


@pytest.mark.parametrize("recovery", ["next-link", None])
def test_a_page_older_than_its_subscription_is_healed(edge: Edge, recovery: str | None) -> None:
    """As if it had left the cache just before the purge and arrived just after the publish."""
    name = f"late-{recovery}"

    async def scenario() -> tuple[int, float]:
        with board(edge, recovery=recovery) as served:
            async with StreamClient(served.url(name)) as early:
                await early.event(shows(0))
                served.purges.swallows = True
                await asyncio.to_thread(served.change, name, 1)
                await early.event(shows(1))
                async with connected(StreamClient(served.url(name)) for _ in range(100)) as late:
                    for client in late:
                        await client.event(shows(0))
                    served.purges.swallows = False
                    started = time.monotonic()
                    arrived = await healed(late, 1)
                    assert not any(client.is_ended for client in late)
                    return len(arrived), max(arrived, default=started) - started

    count, slowest_s = asyncio.run(scenario())

    print(f"\nlate subscription, recovery {recovery}: {count} of 100 healed, in {slowest_s:.2f} s")
    assert count == (100 if recovery else 0)


@pytest.mark.parametrize("recovery", ["next-link", None])
def test_a_publish_that_nobody_received_is_healed(edge: Edge, recovery: str | None) -> None:
    name = f"lost-{recovery}"

    async def scenario() -> tuple[int, float]:
        with board(edge, recovery=recovery) as served:
            async with connected(StreamClient(served.url(name)) for _ in range(100)) as clients:
                for client in clients:
                    await client.event(shows(0))
                served.publishes.swallows = True
                await asyncio.to_thread(served.change, name, 1)
                served.publishes.swallows = False
                started = time.monotonic()
                arrived = await healed(clients, 1)
                return len(arrived), max(arrived, default=started) - started

    count, slowest_s = asyncio.run(scenario())

    print(f"\nlost publish, recovery {recovery}: {count} of 100 healed, in {slowest_s:.2f} s")
    assert count == (100 if recovery else 0)


def test_connecting_costs_the_app_next_to_nothing(edge: Edge) -> None:
    async def scenario() -> tuple[int, int]:
        with board(edge) as served:
            async with connected(StreamClient(served.url("cheap")) for _ in range(500)) as clients:
                for client in clients:
                    await client.event(shows(0))
                # The proxy asks the next link a second after the first subscriber: see it through.
                await asyncio.to_thread(served.change, "cheap", 1)
                before = len(served.served)
                assert len(await healed(clients, 1)) == 500
                repeated = sum(len(client.events) - 2 for client in clients)
                return before, repeated

    requests, repeated = asyncio.run(scenario())

    print(f"\n500 connects: {requests} requests to the app; {repeated} events came twice")
    assert requests <= 1 + 3  # the first is the wait for the cache


def test_the_markers_say_nothing_to_who_is_up_to_date(edge: Edge) -> None:
    async def scenario() -> list[str]:
        with board(edge) as served:
            async with StreamClient(served.url("quiet")) as client:
                await client.event(shows(0))
                for value in (1, 2, 3):
                    await asyncio.to_thread(served.change, "quiet", value)
                    await client.event(shows(value))
                marked = len(served.publishes.with_name("board-quiet"))
                await asyncio.to_thread(wait_for_publishes, served, marked + 1)
                await asyncio.to_thread(served.change, "quiet", 4)
                await client.event(shows(4))
                return [event.data for event in client.events]

    assert asyncio.run(scenario()) == ["0", "1", "2", "3", "4"]


def wait_for_publishes(served: Board, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(served.publishes.with_name("board-quiet")) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
