"""What benchmarks find: figures beside their targets, and curves with their exponents.

Pure values. `benchmarks/results.json` is a list of them, with what they were measured on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any, Literal, Self


@dataclass(frozen=True, slots=True)
class Spread:
    """The quartiles of what several rounds measured."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the quartiles; of a single value, itself."""
        found = list(values)
        if len(found) == 1:
            return cls(found[0], found[0], found[0])
        low, middle, high = quantiles(found, n=4, method="inclusive")
        return cls(low, middle, high)


@dataclass(frozen=True, slots=True)
class Target:
    """What is aimed for: a limit to the value, or to its ratio to the base's."""

    limit: float
    of: Literal["value", "ratio"]
    is_least: bool = False

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {self.limit:,g}{'x' if self.of == 'ratio' else ''}"

    def is_met(self, value: float, ratio: float | None) -> bool:
        """Whether a figure keeps to it."""
        found = value if self.of == "value" else ratio
        if found is None:
            raise ValueError("a target for a ratio needs a base")
        return found >= self.limit if self.is_least else found <= self.limit


def at_most(limit: float) -> Target:
    """Aim for a value of no more than this."""
    return Target(limit, "value")


def at_most_times(limit: float) -> Target:
    """Aim for no more than so many times the base."""
    return Target(limit, "ratio")


def at_least_times(limit: float) -> Target:
    """Aim for no less than so many times the base."""
    return Target(limit, "ratio", is_least=True)


@dataclass(frozen=True, slots=True)
class Result:
    """One figure. `low` and `high` are the quartiles of the value."""

    name: str
    value: float
    unit: str
    base_name: str = ""
    base_value: float | None = None
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """How one quantity grows with another."""

    name: str
    x_name: str
    y_name: str
    points: list[tuple[float, float]]
    exponent: float

    @classmethod
    def of(cls, name: str, x_name: str, y_name: str, points: Sequence[tuple[float, float]]) -> Self:
        """Read the exponent off: the slope of log y over log x, by least squares."""
        return cls(name, x_name, y_name, list(points), exponent_of(points))


Found = Result | Curve


def result(
    name: str,
    values: Iterable[float],
    unit: str,
    *,
    base: str = "",
    base_values: Iterable[float] = (),
    ratio: float | None = None,
    target: Target | None = None,
) -> Result:
    """Make a result of what each round measured.

    The ratio is that of the medians, unless it is given: where the value is what is added to the
    base, it is that of the whole.
    """
    spread = Spread.of(values)
    base_value = median(found) if (found := list(base_values)) else None
    if ratio is None and base_value:
        ratio = spread.middle / base_value
    return Result(
        name,
        spread.middle,
        unit,
        base,
        base_value,
        ratio,
        "" if target is None else str(target),
        None if target is None else target.is_met(spread.middle, ratio),
        spread.low,
        spread.high,
    )


def exponent_of(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of a line through the logarithms of the points."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    return covariance / sum((x - mean_x) ** 2 for x, _ in logs)


def build_found(found: Found) -> dict[str, Any]:
    """Return what JSON can say of it."""
    return asdict(found)


def parse_found(said: dict[str, Any]) -> Found:
    """Read back what `build_found` said."""
    return Curve(**said) if "points" in said else Result(**said)
