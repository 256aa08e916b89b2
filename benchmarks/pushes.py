"""From a commit to a client, on a real edge: beside livecounter, and beside Pushpin alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from operator import eq
from statistics import quantiles

from clients import StreamClient, connected
from launch import publish

from benchmarks.audience import Audience
from benchmarks.counters import NAMES, Counters, serving
from benchmarks.edges import DEFAULT_RATE, SHIPPED_RATE, RatedEdge
from benchmarks.livecounter import encode
from benchmarks.measure import Effort
from benchmarks.results import Curve, Found, Result, at_most, at_most_times, result
from grip_edge_middleware import GripEdge

# A counter is idle: its window is over.
IDLE_AFTER_S = 1.2
# The proxy asks the next link of first subscribers a second after them.
SETTLED_AFTER_S = 3.0
PAUSE_S = 0.1


# --- one client ---------------------------------------------------------------------------------


def delays(effort: Effort) -> Iterator[Result]:
    """From the commit to the last byte at a client, each counter idle."""
    clients, blocks = effort.pick((NAMES, 4), (20, 1))
    with ExitStack() as stack:
        ours = stack.enter_context(serving("ours"))
        peer = stack.enter_context(serving("livecounter"))
        for name, pause_s in (("one now and then", PAUSE_S), ("back to back", 0.0)):
            ours_ms: list[float] = []
            peers_ms: list[float] = []
            for number in range(blocks):
                sides = [(ours, ours_ms), (peer, peers_ms)]
                for side, found in sides if number % 2 else reversed(sides):
                    found += asyncio.run(delays_ms(side, clients, pause_s))
            base = "livecounter"
            yield result(
                f"commit to client, {name}: median",
                ours_ms,
                "ms",
                base=base,
                base_values=peers_ms,
                target=at_most_times(1.0),
            )
            yield result(
                f"commit to client, {name}: 99 %",
                [nearly_all(ours_ms)],
                "ms",
                base=base,
                base_values=[nearly_all(peers_ms)],
                target=at_most_times(1.0),
            )


async def delays_ms(served: Counters, clients: int, pause_s: float) -> list[float]:
    """Return how long each counter's client waited."""
    names = [str(number) for number in range(clients)]
    found: list[float] = []
    async with connected(StreamClient(served.url(name)) for name in names) as streams:
        await asyncio.sleep(SETTLED_AFTER_S)
        for name, client in zip(names, streams, strict=True):
            value, committed = await asyncio.to_thread(served.increment, name)
            told = await client.event(partial(eq, str(value)), timeout_s=20)
            found.append((told.at - committed) * 1000)
            await asyncio.sleep(pause_s)
    return found


def nearly_all(values: list[float]) -> float:
    """Return the 99th percentile."""
    return quantiles(values, n=100, method="inclusive")[-1]


# --- a crowd ------------------------------------------------------------------------------------


def fan_out(effort: Effort) -> Iterator[Found]:
    """One write and all who watch, beside one raw publish to as many by Pushpin alone."""
    sizes = effort.pick((100, 1_000, 5_000, 10_000), (50, 100))
    rounds = effort.pick(5, 2)
    for rate, label in ((SHIPPED_RATE, "as shipped"), (DEFAULT_RATE, "Pushpin's default")):
        ours: dict[int, list[float]] = {}
        raw: dict[int, list[float]] = {}
        with serving("ours", message_rate=rate) as served:
            for size in sizes:
                raw[size] = raw_publishes(served.edge, size, rounds)
                ours[size] = writes(served, size, rounds)
                yield result(
                    f"one write to {size:,} clients, message_rate {label}: last delivery",
                    ours[size],
                    "ms",
                    base="Pushpin alone",
                    base_values=raw[size],
                    target=at_most_times(1.1) if size in (1_000, 5_000) else None,
                )
        points = [(float(size), result("", ms, "").value) for size, ms in ours.items()]
        yield Curve.of(f"last delivery, message_rate {label}", "clients", "ms", points)


def writes(served: Counters, size: int, rounds: int) -> list[float]:
    """Return how long after each commit the last client was told, in milliseconds."""
    found = []
    with Audience(served.url("0"), size) as audience:
        time.sleep(SETTLED_AFTER_S)
        for _ in range(rounds):
            value, committed = served.increment("0")
            found.append(last(audience, b"data: %d\n\n" % value, size) - committed)
            # The confirmations are over then, and what Pushpin may have put off.
            time.sleep(SETTLED_AFTER_S)
    return [took_s * 1000 for took_s in found]


def raw_publishes(edge: RatedEdge, size: int, rounds: int) -> list[float]:
    """Return the same of one publish request, to clients of the edge's own probe."""
    found = []
    with Audience(f"{edge.url}/.grip-edge/probe", size) as audience:
        time.sleep(SETTLED_AFTER_S)
        for number in range(rounds):
            begun = time.monotonic()
            publish(edge.control_port, "grip-edge-probe", f"event: message\ndata: {number}\n\n")
            found.append(last(audience, b"data: %d\n\n" % number, size) - begun)
            time.sleep(PAUSE_S)
    return [took_s * 1000 for took_s in found]


def last(audience: Audience, event: bytes, size: int) -> float:
    times = audience.told(event, timeout_s=30)
    # Of those that come together right after its start, Pushpin drops some now and then.
    assert len(times) > 0.999 * size - 1, f"{size - len(times)} of {size} were not told"
    return times[-1]


def write_rates(effort: Effort) -> Iterator[Found]:
    """What the app's process does as writes to 200 topics grow: it sends each once a second."""
    rates = effort.pick((1, 10, 100, 1_000, 5_000), (10, 100))
    seconds = effort.pick(10, 2)
    shares: list[tuple[float, float]] = []
    with RatedEdge() as edge:
        for rate in rates:
            share, sent = _write(edge, rate, seconds)
            shares.append((float(rate), share))
            yield result(f"{rate:,} writes a second: processor", [share], "ms/s")
            yield result(f"{rate:,} writes a second: messages", [sent], "messages/s")
    yield Curve.of("processor time", "writes a second", "ms/s", shares)


def _write(edge: RatedEdge, rate: int, seconds: int) -> tuple[float, float]:
    """Return what writing so often takes of a processor, and the messages a second."""
    settings = {
        "cdn": edge.cdn_url,
        "grip_url": edge.control_url,
        "topics": {"counter-{name}": {"routes": ["/counters/<name>"], "hold": "stream"}},
    }
    with closing(GripEdge(settings=settings)) as grip_edge:
        grip_edge.publish("counter-{name}", encode(0), name="first")
        grip_edge.flush()
        before, cpu, begun = _published(grip_edge), time.process_time(), time.monotonic()
        for number in range(rate * seconds):
            name = str(number % NAMES)
            grip_edge.publish("counter-{name}", encode(number), name=name)
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        share = (time.process_time() - cpu) / seconds * 1000
        return share, (_published(grip_edge) - before) / seconds


def _published(grip_edge: GripEdge) -> int:
    counts = grip_edge.health()["counts"].items()
    return sum(count for name, count in counts if name.startswith("published "))


def idle(effort: Effort) -> Iterator[Found]:
    """What Pushpin takes for streams on which nothing happens."""
    sizes = effort.pick((1_000, 5_000, 10_000), (500, 1_000))
    points: list[tuple[float, float]] = []
    for size in sizes:
        with RatedEdge() as edge:
            before, begun = edge.pushpin_bytes(), time.monotonic()
            with Audience(f"{edge.url}/.grip-edge/probe", size):
                rate = size / (time.monotonic() - begun)
                time.sleep(SETTLED_AFTER_S)
                points.append((float(size), float(edge.pushpin_bytes() - before)))
        yield result(f"Pushpin, a stream of {size:,}", [points[-1][1] / size / 1e3], "kB")
        yield result(f"Pushpin, {size:,} connect", [rate], "streams/s")
    yield Curve.of("Pushpin's memory", "streams", "bytes", points)


def origin(effort: Effort) -> Iterator[Result]:
    """How often the app is asked while thousands connect, between two changes."""
    size = effort.pick(5_000, 100)
    asked = {}
    for kind in ("ours", "livecounter"):
        with serving(kind) as served:
            served.increment("0")
            time.sleep(SETTLED_AFTER_S)
            before = len(served.asked())
            with Audience(served.url("0"), size):
                time.sleep(SETTLED_AFTER_S)
                asked[kind] = float(len(served.asked()) - before)
    yield result(
        f"{size:,} connect between two changes: the app is asked",
        [asked["ours"]],
        "times",
        base="livecounter",
        base_values=[asked["livecounter"]],
        target=at_most(3),
    )
