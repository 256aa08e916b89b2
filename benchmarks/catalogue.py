"""Which benchmarks there are, the cheap ones first.

Each is a generator function that takes an `Effort` and yields what it finds; its docstring is its
title.
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
    needs: tuple[str, ...] = ()
    """Programs: Debian's packages of these names have them."""
    is_cheap: bool = False
    """Whether `make test` looks if it runs."""

    def run(self, effort: Effort) -> Iterator[Found]:
        """Measure, in this process."""
        return self._function(effort)

    @property
    def title(self) -> str:
        """What it measures."""
        return (self._function.__doc__ or "").strip().partition("\n")[0]

    @property
    def _function(self) -> Callable[[Effort], Iterator[Found]]:
        module = import_module(f"benchmarks.{self.module}")
        function: Callable[[Effort], Iterator[Found]] = getattr(module, self.name)
        return function


EDGE = ("pushpin", "varnishd")

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark("wsgi", "faces", is_cheap=True),
        Benchmark("asgi", "faces", is_cheap=True),
        Benchmark("frameworks", "faces", is_cheap=True),
        Benchmark("instructions", "faces", ("valgrind",)),
        Benchmark("django_grip", "django_peer", is_cheap=True),
        Benchmark("routes", "matching", is_cheap=True),
        Benchmark("signatures", "matching", is_cheap=True),
        Benchmark("submit", "saves", is_cheap=True),
        Benchmark("one_row", "saves"),
        Benchmark("transactions", "saves"),
        Benchmark("imports", "footprint"),
        Benchmark("size", "footprint", is_cheap=True),
        Benchmark("memory", "footprint"),
    )
}
