"""How long a change takes to every region, and whether who is told can still be shown the old.

    python -m benchmarks.propagation [--changes 2000] [--rate 20] [--seed 1]

The library's own store, dispatcher and delivery send over a simulated network, on a simulated
clock: a shield next to the app, and three regions with a cache and a GRIP proxy each.

    app ── shield ──┬── eu: cache, proxy    near
                    ├── us: cache, proxy    far
                    └── ap: cache, proxy    farther

Caches are read all the time, and refilled through the shield. Whoever is told of a change reads his
region's cache at that moment, as the fastest client would. A refill takes no time: what is on its
way during a purge is the business of the gate and of the repeated purge (docs/freshness.md).
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from statistics import median, quantiles
from typing import NamedTuple

from grip_edge_middleware.changes import Change, encode
from grip_edge_middleware.delivery import Delivery, Region
from grip_edge_middleware.dispatcher import Dispatcher
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.grip import Proxy
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.journal import Journal
from grip_edge_middleware.lanes import Answer, Outcome
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.publisher import Publisher
from grip_edge_middleware.purgers.fastly import FastlyPurger
from grip_edge_middleware.purgers.varnish import VarnishPurger
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.stores.memory import MemoryStore

TOPICS = 200
READS_A_SECOND = 200
TIMEOUT_S = 5.0
CUT_OFF_AT_S = 10.0
CUT_OFF_FOR_S = 30.0
TEMPLATE = "page-{n}"
SETTINGS = Settings.parse(
    {
        "throttle": 0,
        "grip_url": None,
        "topics": {TEMPLATE: {"routes": ["/pages/<n>"], "hold": "stream"}},
    },
    {},
)


# --- the network --------------------------------------------------------------------------------


class Network:
    """What happens when. Nothing moves but by `run`."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def __call__(self) -> float:
        return self.now

    def at(self, time: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), happen))

    def run(self, until: float, is_over: Callable[[], object] = lambda: False) -> None:
        """Have everything happen until then, or until it is over."""
        while not is_over() and self._events and self._events[0][0] <= until:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        if not is_over() and until < math.inf:
            self.now = until

    def pause(self, seconds: float) -> None:
        self.run(self.now + seconds)


@dataclass
class Link:
    """The way from the app to one target, and what is there. `take` does what a request asks."""

    one_way_s: float
    take: Callable[[Request], None]
    lost: float = 0.0
    """How many of the requests are never answered; half of them have arrived."""
    is_cut: Callable[[float], bool] = lambda now: False


class SimulatedLanes:
    """The `Lanes` of the delivery, over links."""

    def __init__(self, network: Network, chance: random.Random, links: dict[str, Link]) -> None:
        self._network = network
        self._chance = chance
        self._links = links
        self._answers: list[Answer] = []

    def start(self, target: str, request: Request) -> None:
        link, now = self._links[target], self._network.now
        takes_s = link.one_way_s * self._chance.uniform(1.0, 1.5)
        luck = self._chance.random()
        is_cut = link.is_cut(now)
        if not is_cut and luck >= link.lost / 2:
            self._network.at(now + takes_s, lambda: link.take(request))
        if is_cut or luck < link.lost:
            error = DeliveryError(target, f"no answer within {TIMEOUT_S:g} s")
            self._answer(now + TIMEOUT_S, target, error)
        else:
            self._answer(now + 2 * takes_s, target, acknowledgement(request))

    def _answer(self, at: float, target: str, outcome: Outcome) -> None:
        self._network.at(at, lambda: self._answers.append((target, outcome)))

    def wait(self, timeout_s: float) -> Answer | None:
        self._network.run(self._network.now + timeout_s, lambda: self._answers)
        return self._answers.pop(0) if self._answers else None

    def after_fork(self) -> None:
        self._answers.clear()

    def close(self) -> None:
        pass


def acknowledgement(request: Request) -> Response:
    return Response(200, {"grip-edge-purged": "1"}, b"{}")


# --- the app, the caches and the proxies --------------------------------------------------------


class App:
    """What is committed, numbered; `committed_at` is by that number."""

    def __init__(self) -> None:
        self.values: dict[str, int] = defaultdict(int)
        self.committed_at: dict[int, float] = {}

    def read(self, name: str) -> int:
        return self.values[name]


class Cache:
    """Keeps what it reads from behind it until that is purged."""

    def __init__(self, behind: Callable[[str], int]) -> None:
        self._behind = behind
        self._entries: dict[str, int] = {}

    def read(self, name: str) -> int:
        if name not in self._entries:
            self._entries[name] = self._behind(name)
        return self._entries[name]

    def purge(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._entries.pop(key, None)


@dataclass
class Site:
    """One region: how far it is, its cache, and what was seen there."""

    name: str
    one_way_s: float
    cache: Cache
    settles_within_s: float = 0.0
    unpurged: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    untold: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    purged_s: list[float] = field(default_factory=list)
    published_s: list[float] = field(default_factory=list)
    told: int = 0
    stale: int = 0


class Row(NamedTuple):
    region: str
    purged_s: tuple[float, float]
    """Median, and 99th percentile."""
    published_s: tuple[float, float]
    told: int
    stale: int


class World:
    """One run: a layout of the delivery, on a network with a fault."""

    def __init__(self, layout: Layout, fault: Fault, seed: int) -> None:
        self.chance = random.Random(seed)
        self.network = Network()
        self.app = App()
        shield = Cache(self.app.read)
        self.sites = [
            Site("eu", 0.010, Cache(shield.read)),
            Site("us", 0.045, Cache(shield.read), settles_within_s=0.15),
            Site("ap", 0.120, Cache(shield.read), settles_within_s=0.15),
        ]
        regions = {site.name: region_of(site) for site in self.sites}
        near = VarnishPurger("http://shield")
        links = {near.name: Link(0.002, lambda request: shield.purge(keys_of(request)))}
        for site in self.sites:
            links |= self.links(site, regions[site.name], fault)
        trunk, behind = layout(Region((near,)), list(regions.values()))
        self.store = MemoryStore(clock=self.network)
        self.dispatcher = Dispatcher(
            store=self.store,
            delivery=Delivery(
                lanes=SimulatedLanes(self.network, self.chance, links),
                trunk=trunk,
                regions=behind,
                renderer=NoRenderer(),
                journal=Journal(),
                purge_deadline_s=math.inf,
                clock=self.network,
                pause=self.network.pause,
            ),
            metrics=Counts(),
            clock=self.network,
        )
        self.is_changed = False

    def links(self, site: Site, region: Region, fault: Fault) -> dict[str, Link]:
        [purger], [publisher] = region.purgers, region.publishers
        purge, publish = (
            Link(site.one_way_s, lambda request: self.purge(site, keys_of(request))),
            Link(site.one_way_s, lambda request: self.publish(site, request)),
        )
        for link in (purge, publish):
            fault(site, link)
        return {purger.name: purge, publisher.name: publish}

    # --- what happens -----------------------------------------------------------------------

    def commit(self, number: int) -> None:
        topic = SETTINGS.topics[0]
        filled = topic.template.fill({"n": self.chance.randrange(TOPICS)})
        self.app.values[filled.name] = number
        self.app.committed_at[number] = self.network.now
        for site in self.sites:
            site.unpurged[filled.name].append(number)
            site.untold[filled.name].append(number)
        self.store.add([Change(filled, topic, encode(str(number)))], self.network.now)
        self.is_changed = True

    def purge(self, site: Site, keys: list[str]) -> None:
        """It takes a while until it is everywhere."""
        numbers = {key: list(site.unpurged.pop(key, ())) for key in keys}

        def settle() -> None:
            site.cache.purge(keys)
            site.purged_s += self.ages(number for own in numbers.values() for number in own)

        self.network.at(self.network.now + self.chance.random() * site.settles_within_s, settle)

    def publish(self, site: Site, request: Request) -> None:
        for item in json.loads(request.body)["items"]:
            name, number = item["channel"], int(item["formats"]["http-stream"]["content"])
            news = [other for other in site.untold[name] if other <= number]
            site.untold[name] = [other for other in site.untold[name] if other > number]
            site.published_s += self.ages(news)
            if news:  # else it is known already
                site.told += 1
                site.stale += site.cache.read(name) < number

    def ages(self, numbers: Iterable[int]) -> list[float]:
        return [self.network.now - self.app.committed_at[number] for number in numbers]

    def read(self, site: Site) -> None:
        site.cache.read(f"page-{self.chance.randrange(TOPICS)}")

    # --- the run ----------------------------------------------------------------------------

    def run(self, changes: int, rate: float) -> list[Row]:
        """Change and read at random times, and go on until everything is delivered."""
        end = changes / rate
        times = sorted(self.chance.uniform(0, end) for _ in range(changes))
        for number, time in enumerate(times, 1):
            self.network.at(time, partial(self.commit, number))
        for site in self.sites:
            for _ in range(int(end * READS_A_SECOND)):
                self.network.at(self.chance.uniform(0, end), partial(self.read, site))
        self.network.run(end, lambda: self.is_changed)
        while self.network.now < end or self.store.pending():
            self.is_changed = False
            due = self.dispatcher.turn(self.network.now)
            until = min(end if due is None else due, max(end, self.network.now + TIMEOUT_S))
            self.network.run(until, lambda: self.is_changed)
        self.network.run(self.network.now + 1.0)
        return [row_of(site) for site in self.sites]


class NoRenderer:
    """Each change brings its message."""

    def render(self, path: str, accept: str | None, *, is_private: bool = False) -> Response:
        raise AssertionError(path)


def region_of(site: Site) -> Region:
    publisher = Publisher(Proxy(f"http://{site.name}-proxy"), region=site.name)
    if not site.settles_within_s:
        return Region((VarnishPurger("http://cache", region=site.name),), (publisher,))
    return Region((FastlyPurger(f"{site.name}S", "token", region=site.name),), (publisher,))


def keys_of(request: Request) -> list[str]:
    if request.method == "PURGEKEYS":
        return request.headers["xkey-purge"].split()
    return list(json.loads(request.body)["surrogate_keys"])


def row_of(site: Site) -> Row:
    return Row(site.name, spread(site.purged_s), spread(site.published_s), site.told, site.stale)


def spread(times_s: list[float]) -> tuple[float, float]:
    return median(times_s), quantiles(times_s, n=100)[-1]


# --- what is compared ---------------------------------------------------------------------------

Layout = Callable[[Region, list[Region]], tuple[Region, list[Region]]]
Fault = Callable[[Site, Link], None]


def by_region(shield: Region, regions: list[Region]) -> tuple[Region, list[Region]]:
    return shield, regions


def in_one_list(shield: Region, regions: list[Region]) -> tuple[Region, list[Region]]:
    """Every cache a tier, and every proxy behind all of them."""
    everywhere = [shield, *regions]
    purgers = tuple(purger for region in everywhere for purger in region.purgers)
    return Region(purgers, tuple(p for region in everywhere for p in region.publishers)), []


def after_the_nearest(shield: Region, regions: list[Region]) -> tuple[Region, list[Region]]:
    """The control: all are told when the nearest cache is purged."""
    nearest, *others = regions
    publishers = tuple(p for region in regions for p in region.publishers)
    trunk = Region(shield.purgers + nearest.purgers, publishers)
    return trunk, [Region(region.purgers) for region in others]


def nothing(site: Site, link: Link) -> None:
    """All is well."""


def losses(site: Site, link: Link) -> None:
    link.lost = 0.01


def ap_is_cut_off(site: Site, link: Link) -> None:
    if site.name == "ap":
        link.is_cut = lambda now: CUT_OFF_AT_S <= now < CUT_OFF_AT_S + CUT_OFF_FOR_S


LAYOUTS: dict[str, Layout] = {
    "`regions`": by_region,
    "one list of all": in_one_list,
    "control: told after eu's purge": after_the_nearest,
}
FAULTS: dict[str, Fault] = {
    "all is well": nothing,
    "1 % of requests hang": losses,
    f"ap hangs for {CUT_OFF_FOR_S:g} s": ap_is_cut_off,
}


def compare(changes: int, rate: float, seed: int) -> dict[tuple[str, str], list[Row]]:
    """Return what each layout does with each fault: `changes` in all, `rate` a second."""
    return {
        (fault, layout): World(LAYOUTS[layout], FAULTS[fault], seed).run(changes, rate)
        for fault in FAULTS
        for layout in LAYOUTS
    }


def table(results: dict[tuple[str, str], list[Row]]) -> str:
    lines = [
        "| | | region | purged after ms (99 %) | told after ms (99 %) | told, then shown the old |",
        "|---|---|---|---|---|---|",
    ]
    for (fault, layout), rows in results.items():
        for row in rows:
            is_first = row is rows[0]
            labels = (fault, layout) if is_first else ("", "")
            cells = (*labels, row.region, ms(row.purged_s), ms(row.published_s))
            lines.append("| " + " | ".join([*cells, f"{row.stale:,} of {row.told:,}"]) + " |")
    return "\n".join(lines)


def ms(spread_s: tuple[float, float]) -> str:
    middle_s, nearly_all_s = spread_s
    return f"{middle_s * 1000:,.0f} ({nearly_all_s * 1000:,.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Simulate how changes reach regions.")
    parser.add_argument("--changes", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=20.0, help="changes a second")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.disable()
    print(table(compare(options.changes, options.rate, options.seed)))


if __name__ == "__main__":
    main()
