"""How costs grow: `benchmarks/stores.py` and `benchmarks/propagation.py` as figures."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import propagation
from benchmarks import stores as of_stores
from benchmarks.measure import Effort
from benchmarks.results import Curve, Result, at_most, result
from tests.stores import redis_server

# What a request pays, and what a turn of the dispatcher.
STEPS = ("add", "gate", "claim+release")


def stores(effort: Effort) -> Iterator[Curve]:
    """What each step costs while other topics wait."""
    sizes = effort.pick(of_stores.PENDING, (10, 1_000))
    with redis_server.running() as server:
        redis_server.shared_url = server.url
        for name, open_store, is_own in of_stores.cases():
            if not is_own:
                continue
            points: dict[str, list[tuple[float, float]]] = defaultdict(list)
            for pending in sizes:
                with TemporaryDirectory() as folder, closing(open_store(Path(folder))) as store:
                    of_stores.fill(store, pending)
                    cost = of_stores.measure(store, effort.pick(200, 20))
                for step in STEPS:
                    points[step].append((float(pending), cost[step]))
            for step in STEPS:
                yield Curve.of(f"{name} store, {step}", "pending topics", "µs", points[step])


def regions(effort: Effort) -> Iterator[Result]:
    """How long a change takes to each region, and whether who is told can be shown the old."""
    logging.disable()
    results = propagation.compare(effort.pick(2_000, 300), 20.0, 1)
    for (fault, layout), rows in results.items():
        if layout != "`regions`":
            continue
        others = results[fault, "one list of all"]
        for row, other in zip(rows, others, strict=True):
            yield result(
                f"{fault}: {row.region} is told after",
                [row.published_s[0] * 1000],
                "ms",
                base="one list of all",
                base_values=[other.published_s[0] * 1000],
            )
        stale = float(sum(row.stale for row in rows))
        yield result(f"{fault}: told, then shown the old", [stale], "readers", target=at_most(0))
