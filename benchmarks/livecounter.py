"""What fanout/livecounter's publisher does, in a few lines: the peer of our dispatcher.

    python -m benchmarks.livecounter CACHE_URL CONTROL_URL

It hears of changes from Redis, purges and publishes one by one, and at most once a second for each
counter. As published its trailing edge never fires on Python 3; here it does. It purges the edge's
Varnish by key, with a connection each time, rather than Fastly by URL.

https://github.com/fanout/livecounter

Environment: REDIS_URL, DATABASE_URL.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from gripcontrol import GripPubControl, HttpStreamFormat
from pubcontrol import Item
from redis import Redis
from sqlalchemy import Engine, create_engine, text

UPDATES = "updates"
SEND_DELAY_MS = 1_000
SEND_CHECK_S = 0.1


@dataclass(frozen=True, slots=True)
class Update:
    """What the app says to the publisher."""

    name: str
    value: int

    def encode(self) -> str:
        """Return it as it travels."""
        return json.dumps(asdict(self))


def encode(value: int) -> str:
    """Return a counter's event."""
    return f"event: message\ndata: {value}\n\n"


class Publisher:
    """Purges and publishes. `redis` knows which counter was sent in the last second."""

    def __init__(self, redis: Any, cache_url: str, control_url: str) -> None:
        self._redis = redis
        self._cache = urlsplit(cache_url).netloc
        self._pubcontrol = GripPubControl({"control_uri": control_url})

    def handle(self, update: Update) -> None:
        """Send an update, or note that its counter is to be sent when its second is over."""
        if self._redis.exists(f"counter-sent-{update.name}"):
            self._redis.sadd("counter-need-send", update.name)
        else:
            self._send(update)

    def send_again(self, engine: Engine) -> None:
        """Send what changed within its second."""
        for name in self._redis.smembers("counter-need-send"):
            if not self._redis.exists(f"counter-sent-{name}"):
                self._redis.srem("counter-need-send", name)
                self._send(Update(name, value_of(engine, name)))

    def _send(self, update: Update) -> None:
        self._redis.psetex(f"counter-sent-{update.name}", SEND_DELAY_MS, 1)
        purge(self._cache, f"counter-{update.name}")
        self._pubcontrol.publish(
            f"counter-{update.name}", Item(HttpStreamFormat(encode(update.value)))
        )

    def wait(self) -> None:
        """Wait until all is sent."""
        self._pubcontrol.wait_all_sent()


def purge(cache: str, key: str) -> None:
    """Purge one key."""
    connection = http.client.HTTPConnection(cache, timeout=10)
    connection.request("PURGEKEYS", "/", headers={"xkey-purge": key})
    connection.getresponse().read()
    connection.close()


def value_of(engine: Engine, name: str) -> int:
    """Read a counter."""
    with engine.connect() as connection:
        said = text("SELECT value FROM counter WHERE name = :name")
        return int(connection.execute(said, {"name": name}).scalar_one())


def main() -> None:
    redis: Any = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)
    publisher = Publisher(redis, *sys.argv[1:3])
    engine = create_engine(os.environ["DATABASE_URL"])

    def check() -> None:
        while True:
            publisher.send_again(engine)
            time.sleep(SEND_CHECK_S)

    threading.Thread(target=check, daemon=True).start()
    pubsub = redis.pubsub()
    pubsub.subscribe(UPDATES)
    for message in pubsub.listen():
        if message["type"] == "message":
            publisher.handle(Update(**json.loads(message["data"])))


if __name__ == "__main__":
    main()
