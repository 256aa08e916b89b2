"""How long something takes: in turns with what it is compared to, so that both meet the same noise.

A turn counts by the fastest of its repetitions, since other programs only ever slow it down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import TypeVar

REPETITIONS = 5
REPETITION_S = 0.002
US = 1e6

Work = Callable[[], object]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How thoroughly to measure."""

    is_quick: bool = False

    @property
    def rounds(self) -> int:
        """Turns of each side."""
        return self.pick(50, 3)

    def pick(self, thorough: T, quick: T) -> T:
        """Return the one of two values that goes with it."""
        return quick if self.is_quick else thorough


@dataclass(frozen=True, slots=True)
class Turns:
    """The microseconds of one call of each work, one number for each round."""

    of: Mapping[str, list[float]]

    def added(self, name: str, base: str) -> list[float]:
        """Return what a work takes more than another, round by round."""
        return [its - bases for its, bases in zip(self.of[name], self.of[base], strict=True)]

    def ratio(self, name: str, base: str) -> float:
        """Return the median of the ratios, round by round."""
        pairs = zip(self.of[name], self.of[base], strict=True)
        return median(its / bases for its, bases in pairs)


def in_turns(works: Mapping[str, Work], effort: Effort, *, between: Work = lambda: None) -> Turns:
    """Measure works that take some microseconds each. `between` two turns nobody looks."""
    counts = {name: _repetition(work) for name, work in works.items()}
    found: dict[str, list[float]] = {name: [] for name in works}
    for number in range(effort.rounds):
        for name in _rotated(list(works), number):
            found[name].append(_turn(works[name], counts[name]) * US)
            between()
    return Turns(found)


def _repetition(work: Work) -> int:
    """Return how often it is called in one repetition. Warms it up."""
    count = 1
    while (took_s := _timed(work, count)) * count < REPETITION_S / 2:
        count *= 2
    return max(1, round(REPETITION_S / took_s))


def _rotated(names: Sequence[str], by: int) -> list[str]:
    """Nobody always comes after the same."""
    at = by % len(names)
    return [*names[at:], *names[:at]]


def _turn(work: Work, count: int) -> float:
    return min(_timed(work, count) for _ in range(REPETITIONS))


def _timed(work: Work, count: int) -> float:
    """Return the seconds of one call."""
    begun = time.perf_counter()
    for _ in repeat(None, count):
        work()
    return (time.perf_counter() - begun) / count
