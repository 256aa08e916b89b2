"""Long-polls from a cache, on real Pushpin and Varnish: answered at once, or held until news."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from clients import Reply, StreamClient, request
from launch import Edge
from servers import wait_until_reached, wsgi_server
from tap import Tap

from grip_edge_middleware import GripEdge

pytestmark = pytest.mark.live

CONFIRM_AFTER_S = 0.5


class Polled:
    """An app that answers with a value for each path, behind the edge."""

    def __init__(self, edge: Edge, purges: Tap, publishes: Tap, **settings: Any) -> None:
        self.url = f"{edge.url}/poll"
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
                "topics": {"poll-{n}": {"routes": ["/poll/<n>"], "hold": "response"}},
                "throttle": 0,
                **settings,
            }
        )
        self.face = self.grip_edge.wsgi(self.app)

    def app(self, environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % self.values.get(environ["PATH_INFO"], 0)]

    def counting(self, environ: Any, start_response: Any) -> Any:
        self.served.append(environ["PATH_INFO"])
        return self.face(environ, start_response)

    def ask(self, name: str, tag: str | None = None) -> Reply:
        headers = {} if tag is None else {"If-None-Match": tag}
        return request(f"{self.url}/{name}", headers, timeout_s=30)

    def wait_until_passed_on(self, name: str, count: int) -> None:
        """Wait until the cache has answered the proxy so often from its copy."""
        deadline = time.monotonic() + 10
        # The copy of the host that clients ask for.
        host = {"Host": f"127.0.0.1:{self.edge.client_port}"}
        for looks in itertools.count():
            reply = request(f"{self.edge.cache_url}/poll/{name}", host)
            if int(reply.headers["X-Cache-Hits"]) > count + looks:
                return
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def change(self, name: str, value: int) -> None:
        self.values[f"/poll/{name}"] = value
        self.grip_edge.submit("poll-{n}", n=name)
        assert self.grip_edge.flush(10)

    def wait_until_published(self, name: str, count: int) -> None:
        deadline = time.monotonic() + 10
        while len(self.publishes.with_name(f"poll-{name}")) < count:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@contextmanager
def polled(edge: Edge, **settings: Any) -> Iterator[Polled]:
    with Tap(edge.cache_port) as purges, Tap(edge.control_port) as publishes:
        app = Polled(edge, purges, publishes, **settings)
        try:
            with wsgi_server(app.counting, edge.app_port):
                wait_until_reached(f"{edge.cache_url}/poll/ready")
                yield app
        finally:
            app.grip_edge.close()


def test_who_has_nothing_or_something_old_is_answered_at_once(edge: Edge) -> None:
    with polled(edge) as app:
        first = app.ask("a")
        app.change("a", 1)
        late = app.ask("a", first.headers["ETag"])

        assert (first.status, first.body) == (200, b"0")
        assert (late.status, late.body) == (200, b"1")
        assert late.headers["ETag"] != first.headers["ETag"]
        assert "Grip-Hold" not in late.headers


def test_who_has_the_latest_is_held_until_there_is_news(edge: Edge) -> None:
    with polled(edge) as app, ThreadPoolExecutor(16) as pool:
        tag = app.ask("b").headers["ETag"]
        held = [pool.submit(app.ask, "b", tag) for _ in range(10)]
        app.wait_until_passed_on("b", 10)
        assert not any(answer.done() for answer in held)
        app.change("b", 1)
        answers = [answer.result(20) for answer in held]
        again = app.ask("b")

        assert {(answer.status, answer.body) for answer in answers} == {(200, b"1")}
        assert {answer.headers["ETag"] for answer in answers} == {again.headers["ETag"]}
        assert app.served.count("/poll/b") == 2


def test_without_news_it_is_a_304_when_the_time_is_up(edge: Edge) -> None:
    with polled(edge, hold_timeout=5) as app:
        tag = app.ask("c").headers["ETag"]
        started = time.monotonic()
        answer = app.ask("c", tag)

        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == tag
        assert time.monotonic() - started >= 5
        assert app.served.count("/poll/c") == 1


@pytest.mark.parametrize("recovery", ["next-link", None])
def test_who_was_held_with_an_old_page_is_healed_by_the_marker(
    edge: Edge, recovery: str | None
) -> None:
    """As if the page had left the cache just before the purge and arrived after the publish."""
    name = f"late-{recovery}"
    with polled(edge, recovery=recovery, hold_timeout=5) as app, ThreadPoolExecutor(16) as pool:
        tag = app.ask(name).headers["ETag"]
        early = pool.submit(app.ask, name, tag)
        # A proxy itself asks again after a second for the first who subscribes to a channel.
        app.wait_until_passed_on(name, 2)
        app.purges.swallows = True
        app.change(name, 1)
        assert early.result(20).body == b"1"
        late = pool.submit(app.ask, name, tag)
        app.wait_until_passed_on(name, 3)
        app.purges.swallows = False
        started = time.monotonic()
        answer = late.result(20)

        print(f"\nold long-poll, recovery {recovery}: after {time.monotonic() - started:.2f} s")
        assert (answer.status, answer.body) == ((200, b"1") if recovery else (304, b""))


def test_the_markers_leave_who_is_up_to_date_alone(edge: Edge) -> None:
    with polled(edge, hold_timeout=5) as app, ThreadPoolExecutor(16) as pool:
        app.change("quiet", 1)
        tag = app.ask("quiet").headers["ETag"]
        held = pool.submit(app.ask, "quiet", tag)
        app.wait_until_published("quiet", 2)
        app.change("quiet", 2)
        answer = held.result(20)

        assert (answer.status, answer.body) == (200, b"2")


def test_100_clients_loop_through_50_changes(edge: Edge) -> None:
    """With random pauses between their polls: each ends on the last version."""
    seen: list[list[bytes]] = []

    async def loop(app: Polled, pauses: random.Random) -> None:
        bodies: list[bytes] = []
        seen.append(bodies)
        tag = ""
        while bodies[-1:] != [b"50"]:
            async with StreamClient(f"{app.url}/loop", {"If-None-Match": tag}) as client:
                await client.end(30)
            if client.status == 200:
                tag = client.headers["ETag"]
                bodies.append(client.body)
            await asyncio.sleep(pauses.uniform(0, 0.2))

    async def scenario(app: Polled) -> None:
        clients = [loop(app, random.Random(number)) for number in range(100)]
        changing = asyncio.to_thread(change_50_times, app)
        await asyncio.wait_for(asyncio.gather(changing, *clients), 60)

    def change_50_times(app: Polled) -> None:
        for value in range(1, 51):
            app.change("loop", value)
            app.wait_until_published("loop", value)
            time.sleep(random.Random(value).uniform(0, 0.2))

    with polled(edge) as app:
        asyncio.run(scenario(app))
        requests = app.served.count("/poll/loop")

    answers = sum(map(len, seen))
    print(
        f"\nlong-poll: 100 clients, 50 changes: {answers} answers, {requests} requests to the app"
    )
    for bodies in seen:
        values = list(map(int, bodies))
        assert values == sorted(values)
    assert requests <= 2 * 51
