"""Private topics on real Pushpin and Varnish: nobody else sees them, and streams have no gaps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from clients import StreamClient, connected, request
from launch import Edge
from servers import wait_until_reached, wsgi_server
from tap import Tap

from grip_edge_middleware import GripEdge
from grip_edge_middleware.grip import private_next_link

pytestmark = [pytest.mark.live, pytest.mark.both_edges]

SECRET = "a secret of ours, for tests only"
ANN = {"Cookie": "user=ann"}
PATH = "/inbox/ann"
LINK = private_next_link(["inbox-ann"], SECRET)


class Inbox:
    """An app that shows Ann's inbox to Ann, and to the edge itself."""

    def __init__(self, edge: Edge, publishes: Tap) -> None:
        self.count = 0
        self.served: list[str] = []
        self.was_asked_for_more = threading.Event()
        self.grip_edge = GripEdge(
            settings={
                "cdn": edge.cdn_url,
                "grip_url": f"http://127.0.0.1:{publishes.port}",
                "confirm_after": 0.5,
                "topics": {
                    "inbox-{user}": {
                        "routes": ["/inbox/<user>"],
                        "hold": "stream",
                        "private": True,
                        "throttle": 0,
                    }
                },
            },
            environ={"GRIP_VERIFY_KEY": edge.verify_key, "GRIP_EDGE_SECRET": SECRET},
        )
        self.face = self.grip_edge.wsgi(self.app)

    def app(self, environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] != PATH:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b""]
        is_ann = environ.get("HTTP_COOKIE") == "user=ann"
        if not (is_ann or self.grip_edge.is_rendering):
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"who are you?"]
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [b"data: %d\n\n" % self.count]

    def counting(self, environ: Any, start_response: Any) -> Any:
        self.served.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == LINK:
            self.was_asked_for_more.set()
        return self.face(environ, start_response)

    def receive(self) -> None:
        self.count += 1
        self.grip_edge.submit("inbox-{user}", user="ann")
        assert self.grip_edge.flush(10)


@contextmanager
def inbox(edge: Edge) -> Iterator[tuple[Inbox, Tap]]:
    with Tap(edge.control_port) as publishes:
        served = Inbox(edge, publishes)
        try:
            with wsgi_server(served.counting, edge.app_port):
                wait_until_reached(f"{edge.cache_url}/ready")
                yield served, publishes
        finally:
            served.grip_edge.close()


def shows(value: int) -> Any:
    return lambda data: data == str(value)


def test_only_who_may_see_it_is_held_and_nothing_is_cached(edge: Edge) -> None:
    async def scenario() -> None:
        with inbox(edge) as (served, _):
            async with connected(StreamClient(edge.url + PATH, ANN) for _ in range(2)) as clients:
                for client in clients:
                    await client.event(shows(0))
                assert served.served.count(PATH) == 2
                assert request(edge.url + PATH).status == 403
                await asyncio.to_thread(served.receive)
                for client in clients:
                    await client.event(shows(1))
                    assert not client.is_ended

    asyncio.run(scenario())


def test_the_signed_link_heals_a_lost_message(edge: Edge) -> None:
    async def scenario() -> None:
        with inbox(edge) as (served, publishes):
            async with StreamClient(edge.url + PATH, ANN) as client:
                await client.event(shows(0))
                assert await asyncio.to_thread(served.was_asked_for_more.wait, 10)
                publishes.swallows = True
                await asyncio.to_thread(served.receive)
                publishes.swallows = False
                await client.event(shows(1))
                assert not client.is_ended

    asyncio.run(scenario())


def test_the_signed_link_is_of_no_use_to_anybody_else(edge: Edge) -> None:
    last = {"Grip-Last": "inbox-ann; last-id=1"}
    with inbox(edge):
        direct = request(edge.cache_url + LINK, {**last, "Grip-Sig": "forged"})
        public = request(edge.url + LINK, last)

    for reply in (direct, public):
        assert reply.status in (403, 404)
        assert b"data" not in reply.body
