"""What each store costs, and how that grows with what is pending.

    PYTHONPATH=examples/edge python -m benchmarks.stores [--rounds 200] [--only sqlite]

In each round one topic is added, taken in, claimed and released, and a request asks the gate. All
other topics wait, and are due. A shared store is measured twice: by a process that has to send all
that waits, and by one that has not, since others submitted it. The table has medians, in
microseconds.

`add` and `gate` are what a request pays, the others are the dispatcher's thread's.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from grip_edge_middleware.changes import Change
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.stores import Store
from grip_edge_middleware.stores.codec import Codec
from grip_edge_middleware.stores.memory import MemoryStore
from grip_edge_middleware.stores.records import Shelf
from grip_edge_middleware.stores.redis import RedisShelf
from grip_edge_middleware.stores.shared import SharedStore
from grip_edge_middleware.stores.sqlite import SQLiteShelf
from tests.stores import redis_server

PENDING = (10, 1_000, 100_000)
# Topics that a page shows.
SHOWN = 3
CHUNK = 1_000
US = 1e6

SETTINGS = Settings.parse({"topics": {"item-{n}": {"routes": ["/items/<n>/"]}}}, {})
[ITEM] = SETTINGS.topics
CODEC = Codec(SETTINGS.topics, throttle_s=1.0)

OpenStore = Callable[[Path], Store]


def shared(open_shelf: Callable[[Path], Shelf]) -> OpenStore:
    return lambda folder: SharedStore(open_shelf(folder), max_pending=10**6)


MEMORY: dict[str, OpenStore] = {"memory": lambda _: MemoryStore(max_pending=10**6)}
SHARED: dict[str, OpenStore] = {
    "sqlite": shared(lambda folder: SQLiteShelf(folder / "store.sqlite3", CODEC)),
    "redis": shared(lambda folder: RedisShelf(redis_server.shared_url, CODEC, name=folder.name)),
}


def change(number: int) -> Change:
    return Change(ITEM.template.fill({"n": str(number)}), ITEM, None)


def fill(store: Store, pending: int) -> None:
    """Have so many topics wait."""
    for first in range(0, pending, CHUNK):
        numbers = range(first, min(first + CHUNK, pending))
        store.add([change(number) for number in numbers], time.monotonic())
        store.take_in()


def measure(store: Store, rounds: int) -> dict[str, float]:
    """Return what each call costs, in microseconds."""
    took: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for name, step in steps(store, -1 - number):
            begun = time.perf_counter()
            step()
            took[name].append((time.perf_counter() - begun) * US)
    return {name: median(of) for name, of in took.items()}


def steps(store: Store, number: int) -> Iterator[tuple[str, Callable[[], object]]]:
    new = change(number)
    yield "add", lambda: store.add([new], time.monotonic())
    yield "take_in", store.take_in
    yield "claim+release", lambda: claim_one(store)
    yield "next_due", store.next_due
    names = [change(shown).topic.name for shown in range(SHOWN)]
    yield "gate", lambda: ask_gate(store, names)


def claim_one(store: Store) -> None:
    now = time.monotonic()
    store.release(store.claim(now, limit=1), now)


def ask_gate(store: Store, names: list[str]) -> None:
    """Ask what a request does, when it begins and when it ends."""
    gate = store.for_request(names)
    begun = gate.sequence()
    gate.versions(names)
    gate.has_changed(names, begun)


def cases() -> Iterator[tuple[str, OpenStore, bool]]:
    for name, open_store in MEMORY.items():
        yield name, open_store, True
    for name, open_store in SHARED.items():
        yield name, open_store, True
        yield f"{name}, others'", open_store, False


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what stores cost.")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    with ExitStack() as stack:
        if options.only in "redis, others'":
            server = stack.enter_context(redis_server.running())
            redis_server.shared_url = server.url
        print_table(options.only, options.rounds)


def print_table(only: str, rounds: int) -> None:
    columns = ("add", "take_in", "claim+release", "next_due", "gate")
    print(f"{'store, us':18} {'pending':>8}", *(f"{column:>14}" for column in columns))
    for name, open_store, is_own in cases():
        if only not in name:
            continue
        for pending in PENDING:
            with TemporaryDirectory() as folder, closing(open_store(Path(folder))) as first:
                fill(first, pending)
                with closing(first if is_own else open_store(Path(folder))) as store:
                    cost = measure(store, rounds)
            row = (f"{cost[column]:14.1f}" for column in columns)
            print(f"{name:18} {pending:8}", *row, flush=True)


if __name__ == "__main__":
    main()
