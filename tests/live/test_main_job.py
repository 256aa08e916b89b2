"""The main job on the real chain: the Flask example behind Pushpin and Varnish.

What is counted is counted on the wire: the requests that reach the app, and through taps what it
sends to Varnish and Pushpin.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from clients import StreamClient, connected, request
from flask import Flask
from launch import Edge
from servers import wsgi_server
from tap import Passage, Tap

from examples.flask_app import app as counters
from grip_edge_middleware import GripEdge

pytestmark = [pytest.mark.live, pytest.mark.both_edges]

# Importing the example makes an app of its own, which saves its first counters to an edge that is
# not there. Ours is made by the fixture.
counters.edge.close()


@dataclass
class LiveApp:
    """The example, served behind the edge from this process."""

    app: Flask
    edge: Edge
    purges: Tap
    publishes: Tap
    database: Path
    served: list[str] = field(default_factory=list)

    @property
    def grip_edge(self) -> GripEdge:
        grip_edge: GripEdge = self.app.extensions["grip_edge"]
        return grip_edge

    def url(self, name: str, what: str = "events") -> str:
        return f"{self.edge.url}/counters/{name}/{what}"

    def increment(self, name: str) -> int:
        """POST through the whole chain; return the value that was committed."""
        reply = request(self.url(name, "increment"), method="POST", body=b"")
        assert reply.status == 200, reply
        return value_of(reply.body.decode())

    def read(self, name: str) -> int:
        return int(request(self.url(name, "value")).body)

    def names(self, prefix: str, count: int) -> list[str]:
        """Add counters of 0 behind everybody's back, so that no window is open for them."""
        names = [f"{prefix}{number}" for number in range(count)]
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.executemany(
                "insert into counter (name, value) values (?, 0)", [(name,) for name in names]
            )
        return names


def value_of(data: str) -> int:
    return int(json.loads(data)["value"])


def shows(value: int) -> Callable[[str], bool]:
    return lambda data: value_of(data) == value


def settings_through(purges: Tap, publishes: Tap) -> dict[str, Any]:
    return {
        **counters.GRIP_EDGE,
        "cdn": f"varnish://127.0.0.1:{purges.port}",
        "grip_url": f"http://127.0.0.1:{publishes.port}",
        "timeout": 2.0,
    }


@pytest.fixture(scope="module")
def live(edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApp]:
    database: Path = tmp_path_factory.mktemp("live") / "counters.sqlite3"
    with ExitStack() as stack:
        purges = stack.enter_context(Tap(edge.cache_port))
        publishes = stack.enter_context(Tap(edge.control_port))
        app = counters.create_app(
            {
                "SQLALCHEMY_DATABASE_URI": f"sqlite:///{database}",
                "GRIP_EDGE": settings_through(purges, publishes),
            }
        )
        live = LiveApp(app, edge, purges, publishes, database)

        def count(environ: Any, start_response: Any) -> Any:
            live.served.append(environ["PATH_INFO"])
            return app.wsgi_app(environ, start_response)

        stack.enter_context(wsgi_server(count, edge.app_port))
        yield live
        live.grip_edge.close()


def test_200_clients_open_a_stream_and_the_app_serves_one_request(live: LiveApp) -> None:
    [name] = live.names("crowd", 1)
    before = live.served.count(f"/counters/{name}/events")

    async def scenario() -> tuple[list[int], list[float]]:
        async with connected(StreamClient(live.url(name)) for _ in range(200)) as clients:
            firsts = [value_of((await c.event(shows(0))).data) for c in clients]
            assert live.served.count(f"/counters/{name}/events") - before == 1
            started = time.monotonic()
            await asyncio.to_thread(live.increment, name)
            events = [await c.event(shows(1)) for c in clients]
            async with StreamClient(live.url(name)) as late:
                first = value_of((await late.event(lambda _: True)).data)
            assert first == 1
            return firsts, [event.at - started for event in events]

    firsts, delays = asyncio.run(scenario())

    assert firsts == [0] * 200
    assert live.served.count(f"/counters/{name}/events") - before == 2  # once more for the late
    print(f"\n200 clients, 1 request; POST to the last of 200 events: {max(delays) * 1000:.0f} ms")


def test_100_saves_within_a_second_make_two_purges_and_two_publishes(live: LiveApp) -> None:
    [name] = live.names("busy", 1)
    topic = f"counter-{name}"
    purges, publishes = len(live.purges.with_name(topic)), len(live.publishes.with_name(topic))

    async def scenario() -> None:
        async with StreamClient(live.url(name)) as client:
            await client.event(shows(0))
            await asyncio.to_thread(save_100_times, live, name)
            await client.event(shows(100))

    started = time.monotonic()
    asyncio.run(scenario())

    new_purges = live.purges.with_name(topic)[purges:]
    new_publishes = live.publishes.with_name(topic)[publishes:]
    assert len(new_purges) <= 2
    assert len(new_publishes) <= 2
    assert live.read(name) == 100
    print(
        f"\n100 saves: {len(new_purges)} purges, {len(new_publishes)} publishes, "
        f"the last value after {time.monotonic() - started:.2f} s"
    )


def save_100_times(live: LiveApp, name: str) -> None:
    started = time.monotonic()
    with live.app.app_context():
        for _ in range(100):
            counters.add_one(name)
    assert time.monotonic() - started < 1, "the machine is too slow for this test to say anything"


def test_100_counters_saved_at_once_make_one_purge_and_one_publish(live: LiveApp) -> None:
    names = live.names("many", 100)
    topics = {f"counter-{name}" for name in names}
    purges, publishes = len(live.purges.passages), len(live.publishes.passages)

    with live.app.app_context():
        for name in names:
            counters.db.session.get_one(counters.Counter, name).value = 7
        counters.db.session.commit()
    assert live.grip_edge.flush(20)

    purged = [p for p in live.purges.passages[purges:] if topics & set(p.names)]
    published = [p for p in live.publishes.passages[publishes:] if topics & set(p.names)]
    assert len(purged) == 1
    assert topics <= set(purged[0].names)
    assert len(published) == 1
    assert topics <= set(published[0].names)
    print("\n100 counters in one commit: 1 purge request, 1 publish request")


def test_rolled_back_work_sends_nothing(live: LiveApp) -> None:
    [name] = live.names("undone", 1)
    db, counter_class = counters.db, counters.Counter
    before = len(live.purges.passages), len(live.publishes.passages)

    with live.app.app_context():
        db.session.get_one(counter_class, name).value = 1
        db.session.flush()
        db.session.rollback()
        savepoint = db.session.begin_nested()
        db.session.get_one(counter_class, name).value = 2
        db.session.flush()
        savepoint.rollback()
        db.session.commit()
    assert live.grip_edge.flush(5)

    assert (len(live.purges.passages), len(live.publishes.passages)) == before
    assert live.grip_edge.health()["pending"] == 0


def test_no_publish_before_the_acknowledged_purge_in_1000_changes(edge: Edge) -> None:
    versions = dict.fromkeys((f"order-{number}" for number in range(50)), 0)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % versions[environ["PATH_INFO"][1:]]]

    with Tap(edge.cache_port) as purges, Tap(edge.control_port) as publishes:
        settings = {
            "cdn": f"varnish://127.0.0.1:{purges.port}",
            "grip_url": f"http://127.0.0.1:{publishes.port}",
            "topics": {"order-{n}": {"routes": ["/order-<n>"], "hold": "stream", "throttle": 0.02}},
        }
        grip_edge = GripEdge(settings=settings)
        grip_edge.wsgi(app)
        for number in range(1000):
            name = f"order-{number % 50}"
            versions[name] += 1
            grip_edge.submit(name)
            if number % 10 == 9:  # as fast as they are sent, so that there are many batches
                wait_until(lambda n=number: len(publishes.passages) * 20 >= n)  # type: ignore[misc]
        assert grip_edge.flush(30)
        grip_edge.close()

    assert {p.status for p in purges.passages + publishes.passages} == {200}
    assert len(publishes.passages) >= 50
    for name in versions:
        published = publishes.with_name(name)
        for publish, previous in pairs(published):
            # Each publish has a purge of its own, acknowledged before it left.
            assert any(
                previous <= purge.arrived and purge.answered <= publish
                for purge in purges.with_name(name)
            )
        contents = [item_of(publish, name)["http-stream"]["content"] for publish in published]
        assert [content for content in contents if content][-1] == "20"  # else a marker
    print(
        f"\n1,000 changes of 50 topics: {len(purges.passages)} purges, "
        f"{len(publishes.passages)} publishes, none out of order"
    )


def item_of(publish: Passage, channel: str) -> dict[str, Any]:
    items = json.loads(publish.body)["items"]
    formats: dict[str, Any] = next(i["formats"] for i in items if i["channel"] == channel)
    return formats


def pairs(passages: list[Any]) -> Iterator[tuple[float, float]]:
    """The arrival of each and of the one before it."""
    previous = 0.0
    for passage in passages:
        yield passage.arrived, previous
        previous = passage.arrived


@pytest.mark.lab
@pytest.mark.real_edge  # a time
def test_commit_to_browser_time(live: LiveApp, record_property: Callable[..., None]) -> None:
    names = live.names("timed", 200)

    async def scenario() -> list[float]:
        delays = []
        async with connected(StreamClient(live.url(name)) for name in names) as clients:
            for client in clients:
                await client.event(shows(0))
            for name, client in zip(names, clients, strict=True):
                started = time.monotonic()
                await asyncio.to_thread(live.increment, name)
                delays.append((await client.event(shows(1))).at - started)
        return delays

    delays_ms = sorted(1000 * delay for delay in asyncio.run(scenario()))
    median, p99 = statistics.median(delays_ms), delays_ms[197]

    assert len(delays_ms) == 200
    record_property("median_ms", median)
    record_property("p99_ms", p99)
    print(f"\nPOST to EventSource message, 200: median {median:.1f} ms, p99 {p99:.1f} ms")


# How each part fails, and how it is mended.
VARNISH_REFUSES = (Edge.stop_varnish, Edge.start_varnish)
VARNISH_HANGS = (Edge.pause_varnish, Edge.resume_varnish)
PUSHPIN_REFUSES = (Edge.stop_pushpin, Edge.start_pushpin)
PUSHPIN_HANGS = (Edge.pause_pushpin, Edge.resume_pushpin)


@contextmanager
def outage(live: LiveApp, *faults: tuple[Callable[[Edge], None], ...]) -> Iterator[None]:
    with ExitStack() as mended:
        for break_it, mend_it in faults:
            break_it(live.edge)
            mended.callback(mend_it, live.edge)
        yield


@contextmanager
def both_answer_500(live: LiveApp) -> Iterator[None]:
    live.purges.is_broken = live.publishes.is_broken = True
    try:
        yield
    finally:
        live.purges.is_broken = live.publishes.is_broken = False


OUTAGES: dict[str, Callable[[LiveApp], AbstractContextManager[None]]] = {
    "varnish-refuses": lambda live: outage(live, VARNISH_REFUSES),
    "varnish-hangs": lambda live: outage(live, VARNISH_HANGS),
    "pushpin-refuses": lambda live: outage(live, PUSHPIN_REFUSES),
    "pushpin-hangs": lambda live: outage(live, PUSHPIN_HANGS),
    "both-hang": lambda live: outage(live, VARNISH_HANGS, PUSHPIN_HANGS),
    "both-answer-500": both_answer_500,
}


@pytest.mark.real_edge  # of processes that are stopped and frozen
@pytest.mark.parametrize("kind", OUTAGES)
def test_a_dead_edge_is_not_the_apps_problem(live: LiveApp, kind: str) -> None:
    [name] = live.names(kind, 1)
    usual_s = median_post_s(live, name)
    assert live.grip_edge.flush(5)

    async def scenario() -> tuple[float, float]:
        async with StreamClient(live.url(name)) as client:
            await client.event(shows(10))
            with OUTAGES[kind](live):
                broken_s = await asyncio.to_thread(median_post_s, live, name)
                await asyncio.to_thread(wait_until, lambda: any_target_fails(live))
            mended = time.monotonic()
            if not client.is_ended:
                return broken_s, (await client.event(shows(20), 10)).at - mended
        # Pushpin is another one now. An EventSource connects again, and so do we.
        async with StreamClient(live.url(name)) as client:
            return broken_s, (await client.event(shows(20), 10)).at - mended

    broken_s, recovery_s = asyncio.run(scenario())

    # Ten times leaves room for a noisy machine; a POST that waited for a target would take 2 s.
    assert broken_s < max(10 * usual_s, 0.2)
    assert live.grip_edge.flush(20)
    assert not any_target_fails(live)
    assert live.read(name) == 20
    print(
        f"\n{kind}: POST to the app {usual_s * 1000:.1f} ms, during the outage "
        f"{broken_s * 1000:.1f} ms; the last value {recovery_s:.2f} s after it"
    )


def median_post_s(live: LiveApp, name: str) -> float:
    """POST ten times to the app itself: the way through the edge may be the broken one."""
    delays = []
    for _ in range(10):
        started = time.monotonic()
        url = f"http://127.0.0.1:{live.edge.app_port}/counters/{name}/increment"
        assert request(url, method="POST", body=b"").status == 200
        delays.append(time.monotonic() - started)
    return statistics.median(delays)


def any_target_fails(live: LiveApp) -> bool:
    return any(target["failures"] for target in live.grip_edge.health()["targets"].values())


def wait_until(is_true: Callable[[], bool], timeout_s: float = 20.0) -> None:
    tick = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline
        tick.wait(0.02)
