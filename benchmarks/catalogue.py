"""Which benchmarks there are, the cheap ones first.

Each is a generator function of its name, that takes an `Effort` and yields what it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

from benchmarks.measure import Effort
from benchmarks.results import Found


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One of them: where it is, and what it needs."""

    name: str
    module: str
    title: str
    needs: tuple[str, ...] = ()
    """Programs: Debian's packages of these names have them."""
    is_cheap: bool = False
    """Whether `make test` looks if it runs."""

    def run(self, effort: Effort) -> Iterator[Found]:
        """Measure, in this process."""
        module = import_module(f"benchmarks.{self.module}")
        measure: Callable[[Effort], Iterator[Found]] = getattr(module, self.name)
        return measure(effort)


EDGE = ("pushpin", "varnishd")
EDGE_AND_REDIS = (*EDGE, "redis-server")

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("wsgi", "faces", "A request to a bare WSGI app", is_cheap=True),
        Benchmark("asgi", "faces", "A request to a bare ASGI app", is_cheap=True),
        Benchmark("frameworks", "faces", "A whole request to Flask and to Starlette"),
        Benchmark("instructions", "faces", "Instructions of a request", ("valgrind",)),
        Benchmark(
            "django_grip",
            "django_peer",
            "A request to Django, beside django-grip's middleware",
            is_cheap=True,
        ),
        Benchmark("keys", "faces", "A response of many keys"),
        Benchmark("routes", "matching", "Finding one of many routes"),
        Benchmark("signatures", "matching", "Verifying Grip-Sig"),
        Benchmark("submit", "saves", "`submit`, on the caller's thread", is_cheap=True),
        Benchmark("one_row", "saves", "A save of one row, with the hooks"),
        Benchmark("transactions", "saves", "What hooks add to a transaction of SQLAlchemy's"),
        Benchmark("imports", "footprint", "Imports, in processes of their own"),
        Benchmark("size", "footprint", "Room on disk"),
        Benchmark("memory", "footprint", "Memory of the store"),
        Benchmark("stores", "growth", "What the stores cost, as topics wait", ("redis-server",)),
        Benchmark("regions", "growth", "Regions, simulated"),
        Benchmark("publishing", "sending", "Publishing to Pushpin", EDGE),
        Benchmark(
            "dispatching",
            "sending",
            "Purging and publishing topics that change at once",
            EDGE_AND_REDIS,
        ),
        Benchmark("delays", "pushes", "From a commit to a client", EDGE_AND_REDIS),
        Benchmark("fan_out", "pushes", "From a commit to all clients", EDGE),
        Benchmark("write_rates", "pushes", "What the app does as writes grow", EDGE),
        Benchmark("idle", "pushes", "What Pushpin takes for streams that wait", EDGE),
        Benchmark(
            "origin", "pushes", "How often the app is asked while thousands connect", EDGE_AND_REDIS
        ),
    )
}
