"""The far side of the wire, simulated: a cache and GRIP proxies, with their faults.

They do what the VCL in `examples/edge/` and Pushpin 1.36 do, as far as that decides who sees which
value. Time is a test's, and nothing moves by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.grip import CONFIRMED
from grip_edge_middleware.http import Response
from tests.recording import Clock, Outcome, Recorded, acknowledged

# Pushpin: what comes out of order waits for what is missing (message_wait), and an id is known for
# a minute (id_cache_ttl).
MESSAGE_WAIT_S = 5.0
ID_CACHE_TTL_S = 60.0

RETRY_AFTER_S = 7

Item = dict[str, Any]


class Fault(Enum):
    """What a target can have."""

    REFUSES = "no connection"
    IS_BUSY = "429 with Retry-After"
    HANGS = "no answer in time, and nothing was done"
    ANSWERS_TOO_LATE = "no answer in time, and everything was done"
    LOSES = "acknowledged, and lost"


@dataclass(slots=True)
class Target:
    """What requests to `url` meet: `take` does what they ask, unless there is a fault.

    `lose` is what is left of them where something acknowledged can be lost. Until `busy_until` it
    has asked not to be asked.
    """

    clock: Clock
    url: str
    take: Callable[[Recorded], None]
    lose: Callable[[Recorded], None] | None = None
    fault: Fault | None = None
    busy_until: float = 0.0

    def respond(self, request: Recorded) -> Outcome:
        if self.fault is Fault.REFUSES:
            return DeliveryError(self.url, "ConnectError: refused")
        if self.fault is Fault.IS_BUSY:
            self.busy_until = self.clock.now + RETRY_AFTER_S
            return Response(429, {"retry-after": str(RETRY_AFTER_S)})
        if self.fault is Fault.HANGS:
            return DeliveryError(self.url, "ReadTimeout")
        if self.fault is Fault.LOSES and self.lose is not None:
            self.lose(request)
            return acknowledged(request)
        self.take(request)
        if self.fault is Fault.ANSWERS_TOO_LATE:
            return DeliveryError(self.url, "ReadTimeout")
        return acknowledged(request)


# --- the cache --------------------------------------------------------------------------------


class Cache:
    """Keeps what it may under its surrogate keys, by path and `Grip-Last`. Nothing expires."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Response] = {}

    def find(self, path: str, grip_last: str) -> Response | None:
        return self.entries.get((path, grip_last))

    def store(self, path: str, grip_last: str, answer: Response) -> None:
        said = answer.headers.get("surrogate-control", "")
        if "max-age" in said and "no-store" not in answer.headers.get("cache-control", ""):
            self.entries[path, grip_last] = answer

    def purge(self, request: Recorded) -> None:
        """Drop what has one of the keys."""
        for place, answer in list(self.entries.items()):
            if not set(request.keys).isdisjoint(answer.headers["surrogate-key"].split()):
                del self.entries[place]


# --- the GRIP proxy ---------------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class Client:
    """One client whose stream is held open: what it shows, and what it has of each channel."""

    shows: bytes = b""
    prev_ids: dict[str, str] = field(default_factory=dict)
    next_link: str = ""
    asks_at: float = 0.0
    is_asking: bool = False
    queue: list[Item] = field(default_factory=list)

    @property
    def grip_last(self) -> str:
        return ", ".join(f"{name}; last-id={last}" for name, last in self.prev_ids.items())

    def hold(self, answer: Response, now: float) -> None:
        """Go on from an answer: a page, or what came since."""
        self.shows = answer.body or self.shows
        channels = answer.headers["grip-channel"]
        self.prev_ids = dict(re.findall(r"([^,; ]+); prev-id=([^,]+)", channels))
        link = re.fullmatch(r"<(.*)>; rel=next; timeout=(\d+)", answer.headers["grip-link"])
        assert link is not None
        self.next_link, self.asks_at = link[1], now + int(link[2])

    def follows(self, item: Item) -> bool:
        """Whether the item comes right after what the client has."""
        return item.get("prev-id") == self.prev_ids[item["channel"]]


class Pushpin:
    """Holds clients, and has those that miss something ask their next link, by `ask`.

    It does not ask for a channel's first subscriber, which newer ones can be told not to.
    """

    def __init__(self, clock: Clock, ask: Callable[[Client], None]) -> None:
        self.clients: list[Client] = []
        self._clock = clock
        self._ask = ask
        # What was sent last on each channel that somebody is subscribed to.
        self._last_ids: dict[str, str] = {}
        self._seen: dict[tuple[str, str], float] = {}
        self._early: list[tuple[float, Item]] = []

    # --- clients ----------------------------------------------------------------------------

    def connect(self, page: Response) -> None:
        """Hold a new client, and have it ask if the page is known to be older than the channel."""
        client = Client()
        client.hold(page, self._clock.now)
        self.clients.append(client)
        for channel, prev_id in client.prev_ids.items():
            if self._last_ids.get(channel, prev_id) != prev_id:
                self._catch_up(client, channel)

    def disconnect(self, client: Client) -> None:
        self.clients.remove(client)
        for channel in client.prev_ids:
            if not self._subscribers(channel):
                self._last_ids.pop(channel, None)

    def resume(self, client: Client, answer: Response) -> None:
        """Go on with the answer to a next link, and then with what came meanwhile."""
        if client not in self.clients:
            return
        client.hold(answer, self._clock.now)
        client.is_asking = False
        queue, client.queue = client.queue, []
        while queue and not client.follows(queue[0]):
            del queue[0]
        for item in queue:
            self._deliver(client, item)

    def _catch_up(self, client: Client, channel: str) -> None:
        # Pushpin forgets it with the first who asks: the next who is late is not noticed.
        self._last_ids.pop(channel, None)
        client.queue.clear()
        if not client.is_asking:
            client.is_asking = True
            self._ask(client)

    def _subscribers(self, channel: str) -> list[Client]:
        return [client for client in self.clients if channel in client.prev_ids]

    # --- what is published ------------------------------------------------------------------

    def publish(self, request: Recorded) -> None:
        for item in request.items:
            self._accept(item)

    def lose(self, request: Recorded) -> None:
        """Take the markers only: who misses those too waits for the next item, or the timeout."""
        for item in request.items:
            if item["id"].endswith(CONFIRMED):
                self._accept(item)

    def _accept(self, item: Item) -> None:
        name = item["channel"], item["id"]
        if self._clock.now < self._seen.get(name, 0.0):
            return
        self._seen[name] = self._clock.now + ID_CACHE_TTL_S
        previous = item.get("prev-id")
        if item.get("no-seq") or self._last_ids.get(item["channel"], previous) == previous:
            self._send(item)
        else:
            self._early.append((self._clock.now + MESSAGE_WAIT_S, item))

    def _send(self, item: Item) -> None:
        channel = item["channel"]
        subscribers = self._subscribers(channel)
        if subscribers and not item.get("no-seq"):
            self._last_ids[channel] = item["id"]
        for client in subscribers:
            self._deliver(client, item)
        for early in self._early:
            if early[1]["channel"] == channel and early[1].get("prev-id") == item["id"]:
                self._early.remove(early)
                self._send(early[1])
                return

    def _deliver(self, client: Client, item: Item) -> None:
        if client.is_asking:
            client.queue.append(item)
        elif client.follows(item):
            client.prev_ids[item["channel"]] = item["id"]
            client.shows = item["formats"]["http-stream"]["content"].encode() or client.shows
        else:
            self._catch_up(client, item["channel"])

    # --- time -------------------------------------------------------------------------------

    def next_due(self) -> float:
        """Return when something happens by itself."""
        timers = [client.asks_at for client in self.clients if not client.is_asking]
        return min([*timers, *(due for due, _ in self._early)], default=float("inf"))

    def tick(self) -> None:
        """Do what is due now: send what has waited long enough, ask where a timeout has ended."""
        now = self._clock.now
        while (early := next((e for e in self._early if e[0] <= now), None)) is not None:
            self._early.remove(early)
            self._send(early[1])
        for client in self.clients:
            if not client.is_asking and client.asks_at <= now:
                client.is_asking = True
                self._ask(client)
