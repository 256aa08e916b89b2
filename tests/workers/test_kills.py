"""Two machines on one Redis, which are killed in turn while both are busy."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from grip_edge_middleware.settings import Settings
from grip_edge_middleware.stores.codec import Codec
from grip_edge_middleware.stores.redis import RedisShelf
from tests.stores.redis_server import RedisServer
from tests.workers.harness import Machine, Site, last_told, numbered

TOPICS = 30
CLIENTS = 4
# Of which each machine saves some between two kills.
SAVES_OF_EACH = 20
GRACE_S = 1.0


@dataclass
class Load:
    """Clients who save counters on any machine, and on another one when they get no answer."""

    machines: list[Machine]
    names: list[str]
    is_over: threading.Event = field(default_factory=threading.Event)
    saved: Counter[int] = field(default_factory=Counter)
    """By the port of the machine."""
    unanswered: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._save, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.is_over.set()
            for thread in threads:
                thread.join()

    def _save(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.is_over.wait(0.01):
            name = chance.choice(self.names)
            while not self._save_on(chance.choice(self.machines), name):
                self.is_over.wait(0.01)

    def _save_on(self, machine: Machine, name: str) -> bool:
        with suppress(OSError, http.client.HTTPException):
            machine.save(name)
            with self._changed:
                self.saved[machine.port] += 1
                self._changed.notify_all()
            return True
        self.unanswered += 1
        return self.is_over.is_set()

    def wait_for_saves(self, machine: Machine) -> None:
        """Wait until the machine has saved some more."""
        with self._changed:
            wanted = self.saved[machine.port] + SAVES_OF_EACH
            assert self._changed.wait_for(lambda: self.saved[machine.port] >= wanted, 60)


def kill_in_turn(
    redis: RedisServer, folder: Path, *, kills: int, lease_s: float | None, has_outbox: bool
) -> int:
    """Kill them so often; return how many topics are without their last value at the end."""
    names = list(numbered(TOPICS))
    outbox = {"grace": GRACE_S} if has_outbox else None
    with Site(folder, redis.url, throttle=0.5, outbox=outbox) as site:
        site.create(*names)
        machines = [
            site.start("gunicorn", "--preload", workers=2, lease_s=lease_s) for _ in range(2)
        ]
        load = Load(machines, names)
        begun = time.monotonic()
        with load.running():
            for number in range(kills):
                victim = machines[number % 2]
                load.wait_for_saves(victim)
                victim.kill()
                victim.start()
        took_s, ended = time.monotonic() - begun, time.monotonic()
        wait_until_all_is_sent(site, machines, redis)
        late_s = time.monotonic() - ended
        told, values = last_told(site.server.requests), site.values()
        lost = [name for name in names if told.get(f"counter-{name}", 0) != values[name]]
        sent = [site.sent(name) for name in names]

    print(
        f"\n{kills} kills in {took_s:.0f} s, {'with' if has_outbox else 'without'} the outbox: "
        f"{sum(values.values())} saves of {TOPICS} counters, {load.unanswered} unanswered; "
        f"{sum(len(one.published) for one in sent)} publishes, of them "
        f"{sum(one.repeated for one in sent)} repeated, "
        f"{sum(one.said_again for one in sent)} with nothing new; "
        f"{len(lost)} without their last value {late_s:.1f} s later"
    )
    return len(lost)


def wait_until_all_is_sent(site: Site, machines: list[Machine], redis: RedisServer) -> None:
    """Wait until nothing is in the outbox, on its way to Redis, or pending there."""
    settings = Settings.parse({"topics": {"counter-{name}": {}}, "grip_url": None}, {})
    shelf = RedisShelf(redis.url, Codec(settings.topics, throttle_s=1.0))
    pause = threading.Event()
    with closing(shelf):
        deadline = time.monotonic() + 60
        while site.outbox() or shelf.oldest() is not None or any(m.pending() for m in machines):
            assert time.monotonic() < deadline
            pause.wait(0.05)


def test_killed_machines_leave_no_topic_without_its_last_value(
    redis: RedisServer, tmp_path: Path
) -> None:
    assert kill_in_turn(redis, tmp_path, kills=3, lease_s=2.0, has_outbox=True) == 0


@pytest.mark.lab
@pytest.mark.timeout(300)
@pytest.mark.parametrize("has_outbox", [True, False], ids=["outbox", "no outbox"])
def test_twenty_kills(has_outbox: bool, redis: RedisServer, tmp_path: Path) -> None:
    lost = kill_in_turn(redis, tmp_path, kills=20, lease_s=None, has_outbox=has_outbox)

    # Without it, what was committed a moment before may not have come to Redis yet.
    assert lost == 0 or not has_outbox
