"""What leaves the app: items to Pushpin, and topics that change at once to Varnish and Pushpin."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from statistics import median
from typing import Any

from gripcontrol import GripPubControl, HttpStreamFormat
from launch import Edge
from pubcontrol import Item
from redis import Redis

from benchmarks.listener import listening
from benchmarks.livecounter import Publisher as Livecounter
from benchmarks.livecounter import Update, encode
from benchmarks.measure import US, Effort
from benchmarks.results import Curve, Found, at_least_times, at_most, result
from grip_edge_middleware import GripEdge
from grip_edge_middleware.grip import Proxy
from grip_edge_middleware.journal import Entry
from grip_edge_middleware.metrics import counted
from grip_edge_middleware.publisher import Publisher
from grip_edge_middleware.transport import HttpTransport
from tests.stores import redis_server

# Held by the edge itself, without an app.
CHANNEL, PATH = "grip-edge-probe", "/.grip-edge/probe"
BATCH = 100
ITEMS = {"ours": 20_000, "http.client": 20_000, "gripcontrol": 4_000}
WITHIN_S = 120.0
JSON = {"Content-Type": "application/json"}

Send = Callable[[int], None]


# --- items --------------------------------------------------------------------------------------


def publishing(effort: Effort) -> Iterator[Found]:
    """Items to one subscriber, by ourselves, by hand, and by gripcontrol's own worker."""
    rates: dict[str, list[float]] = {name: [] for name in ITEMS}
    lost = 0
    with Edge() as edge, listening(edge.url + PATH) as listener:
        senders = {
            "ours": send_by_us(edge.control_url),
            "http.client": send_by_hand(edge.control_port),
            "gripcontrol": send_by_gripcontrol(edge.control_url),
        }
        for _ in range(effort.pick(7, 2)):
            for name, send in senders.items():
                number = effort.pick(ITEMS[name], ITEMS[name] // 10)
                rates[name].append(_rate(send, number))
                missed = listener.lost(number)
                lost += missed if name == "ours" else 0
    name = f"publish, {BATCH} items a request"
    bases = (
        ("http.client", "http.client by hand", 0.6),
        ("gripcontrol", "gripcontrol's worker", 5),
    )
    for base, said, limit in bases:
        yield result(
            name,
            rates["ours"],
            "items/s",
            base=said,
            base_values=rates[base],
            target=at_least_times(limit),
        )
    yield result("published and not delivered", [lost], "items", target=at_most(0))


def _rate(send: Send, number: int) -> float:
    begun = time.perf_counter()
    send(number)
    return number / (time.perf_counter() - begun)


def items(number: int) -> list[dict[str, Any]]:
    """Return so many items, each a line."""
    return [
        {"channel": CHANNEL, "formats": {"http-stream": {"content": f"{n}\n"}}}
        for n in range(number)
    ]


def batches(number: int) -> Iterator[list[dict[str, Any]]]:
    """Return them in batches of equal size."""
    for first in range(0, number, BATCH):
        yield items(min(BATCH, number - first))


def send_by_us(control_url: str) -> Send:
    publisher, transport = Publisher(Proxy(control_url)), HttpTransport(timeout_s=10)

    def send(number: int) -> None:
        for some in batches(number):
            for batch in publisher.batches(some, now=time.time()):
                publisher.check(transport.send(batch.request))

    return send


def send_by_hand(control_port: int) -> Send:
    connection = _connect(control_port)

    def send(number: int) -> None:
        for some in batches(number):
            connection.request("POST", "/publish/", json.dumps({"items": some}), JSON)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200

    return send


def send_by_gripcontrol(control_url: str) -> Send:
    pubcontrol = GripPubControl({"control_uri": control_url})

    def send(number: int) -> None:
        for n in range(number):
            pubcontrol.publish(CHANNEL, Item(HttpStreamFormat(f"{n}\n")))
        pubcontrol.wait_all_sent()

    return send


# --- topics -------------------------------------------------------------------------------------


def dispatching(effort: Effort) -> Iterator[Found]:
    """Distinct topics that change at once, each purged and then published."""
    most = effort.pick(10_000, 1_000)
    with Edge() as edge, redis_server.running() as server, Redis.from_url(server.url) as redis:
        senders = {
            "ours": dispatch_by_us(edge),
            "livecounter": dispatch_by_livecounter(edge, redis),
            "by hand": dispatch_by_hand(edge),
        }
        numbers = {"ours": most, "livecounter": most // 10, "by hand": most}
        rates, us = _dispatch_in_turns(senders, numbers, effort)
        sizes = effort.pick((10, 100, 1_000, 10_000, 100_000), (10, 100))
        by_itself = _growth(senders["ours"], sizes, effort)
        flushed = _growth(dispatch_by_us(edge, flushes=True), sizes[:4], effort)
    name = f"{most:,} topics, purged and published"
    for base, said, limit in (
        ("livecounter", "livecounter's publisher", 30),
        ("by hand", f"http.client by hand, {BATCH} at a time", 0.3),
    ):
        yield result(
            name,
            rates["ours"],
            "topics/s",
            base=said,
            base_values=rates[base],
            target=at_least_times(limit),
        )
    yield result(
        "processor time of a topic",
        us["ours"],
        "µs",
        base="by hand",
        base_values=us["by hand"],
    )
    yield Curve.of("until all are purged and published", "topics", "s", by_itself)
    yield Curve.of("the same, by a flush", "topics", "s", flushed)


def _dispatch_in_turns(
    senders: Mapping[str, Send], numbers: Mapping[str, int], effort: Effort
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the topics a second, and the processor's microseconds for each."""
    rates: dict[str, list[float]] = {name: [] for name in senders}
    us: dict[str, list[float]] = {name: [] for name in senders}
    for _ in range(effort.pick(7, 2)):
        for name, send in senders.items():
            begun = time.process_time()
            rates[name].append(_rate(send, numbers[name]))
            us[name].append((time.process_time() - begun) * US / numbers[name])
    return rates, us


def _growth(send: Send, sizes: Iterable[int], effort: Effort) -> list[tuple[float, float]]:
    """Return the seconds that each number takes; the largest once."""
    rounds = {n: 1 if n > 10_000 else effort.pick(3, 1) for n in sizes}
    return [
        (float(n), median(n / _rate(send, n) for _ in range(times))) for n, times in rounds.items()
    ]


def dispatch_by_us(edge: Edge, *, flushes: bool = False) -> Send:
    published = Published()
    settings = {
        "cdn": edge.cdn_url,
        "grip_url": edge.control_url,
        "metrics": published,
        # Beyond it, topics are purged by their type, and not published.
        "max_pending": 10**6,
        # Else those of one turn would be on their way in the next.
        "confirm_after": 0,
        "topics": {"counter-{name}": {"routes": ["/counters/<name>"], "hold": "stream"}},
    }
    grip_edge = GripEdge(settings=settings)
    turns = iter(range(10**6))

    def send(number: int) -> None:
        turn = next(turns)
        for n in range(number):
            grip_edge.publish("counter-{name}", encode(n), name=f"{turn}-{n}")
        if flushes:
            assert grip_edge.flush(WITHIN_S)
        published.wait(number)

    return send


class Published:
    """Counts what is published: asking the edge again and again would slow it down."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def wait(self, number: int) -> None:
        """Wait until so many are published since the last time."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._count >= number, WITHIN_S)
            self._count = 0

    def read(self, entry: Entry) -> None:
        """Be told of what has happened."""
        amount = sum(amount for event, amount in counted(entry) if event == "published")
        with self._changed:
            self._count += amount
            self._changed.notify_all()

    def count(self, *_: object, **__: object) -> None:
        """Take no interest."""

    def gauge(self, *_: object, **__: object) -> None:
        """Take no interest."""

    def after_fork(self) -> None:
        """Nobody forks here."""


def dispatch_by_livecounter(edge: Edge, redis: Any) -> Send:
    publisher = Livecounter(redis, edge.cache_url, edge.control_url)
    turns = iter(range(10**6))

    def send(number: int) -> None:
        turn = next(turns)
        for n in range(number):
            publisher.handle(Update(f"{turn}-{n}", n))
        publisher.wait()

    return send


def dispatch_by_hand(edge: Edge) -> Send:
    def send(number: int) -> None:
        # New ones each time: Varnish closes what is idle for some seconds.
        with (
            closing(_connect(edge.cache_port)) as cache,
            closing(_connect(edge.control_port)) as proxy,
        ):
            for first in range(0, number, BATCH):
                names = [f"counter-{n}" for n in range(first, min(first + BATCH, number))]
                _ask(cache, "PURGEKEYS", "/", None, {"xkey-purge": " ".join(names)})
                formats = {"http-stream": {"content": encode(first)}}
                body = json.dumps({"items": [{"channel": n, "formats": formats} for n in names]})
                _ask(proxy, "POST", "/publish/", body, JSON)

    return send


def _connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=10)


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: str | None,
    headers: Mapping[str, str],
) -> None:
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
