"""The benchmarks run, and the page shows what they found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.__main__ import run
from benchmarks.callgrind import count_instructions
from benchmarks.catalogue import BENCHMARKS, Benchmark
from benchmarks.machine import missing
from benchmarks.measure import Effort, in_turns
from benchmarks.page import PAGE, PLACE, page
from benchmarks.record import FILE, Record
from benchmarks.results import (
    Curve,
    Result,
    Target,
    at_least_times,
    at_most,
    at_most_times,
    result,
)
from tests.missing import skip_outside_ci

CHEAP = [benchmark for benchmark in BENCHMARKS.values() if benchmark.is_cheap]
OTHERS = [benchmark for benchmark in BENCHMARKS.values() if not benchmark.is_cheap]


def measured(benchmark: Benchmark) -> list[Result | Curve]:
    if lacking := missing(benchmark.needs):
        skip_outside_ci(f"{', '.join(lacking)} not found")
    return run([benchmark], Console(quiet=True), is_quick=True)[benchmark.name]


@pytest.mark.parametrize("benchmark_", CHEAP, ids=lambda benchmark: benchmark.name)
def test_a_cheap_benchmark_runs(benchmark_: Benchmark) -> None:
    found = measured(benchmark_)

    assert found


@pytest.mark.lab
@pytest.mark.timeout(600)
@pytest.mark.parametrize("benchmark_", OTHERS, ids=lambda benchmark: benchmark.name)
def test_another_benchmark_runs(benchmark_: Benchmark) -> None:
    found = measured(benchmark_)

    assert found


# --- figures ------------------------------------------------------------------------------------


def test_a_figure_is_the_median_with_its_quartiles() -> None:
    found = result("name", [1.0, 2.0, 3.0, 4.0, 100.0], "µs")

    assert (found.low, found.value, found.high) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("target", "said", "met"),
    [
        (at_most(2.0), "≤ 2", True),
        (at_most(1.9), "≤ 1.9", False),
        (at_most_times(0.5), "≤ 0.5x", True),
        (at_most_times(0.4), "≤ 0.4x", False),
        (at_least_times(0.5), "≥ 0.5x", True),
        (at_least_times(0.6), "≥ 0.6x", False),
    ],
)
def test_a_target_is_met_up_to_its_limit(target: Target, said: str, met: bool) -> None:
    found = result("name", [2.0], "µs", base="base", base_values=[4.0], target=target)

    assert (found.target, found.met) == (said, met)


def test_a_target_for_a_ratio_needs_a_base() -> None:
    with pytest.raises(ValueError, match="needs a base"):
        result("name", [2.0], "µs", target=at_most_times(1.0))


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_curve_is_its_slope(exponent: float) -> None:
    points = [(x, 3.0 * x**exponent) for x in (1.0, 10.0, 50.0, 1_000.0)]

    curve = Curve.of("name", "x", "y", points)

    assert curve.exponent == pytest.approx(exponent)


def test_what_is_compared_takes_turns() -> None:
    calls: list[str] = []
    works = {name: (lambda name=name: calls.append(name)) for name in ("a", "b")}

    turns = in_turns(works, Effort(is_quick=True), between=lambda: calls.append("|"))

    # Before the first, both are warmed up.
    order = [turn[-1] for turn in "".join(calls).split("|") if turn]
    assert "".join(order) == "abbaab"
    assert {len(us) for us in turns.of.values()} == {Effort(is_quick=True).rounds}


def test_instructions_grow_with_the_work() -> None:
    if missing(("valgrind",)):
        skip_outside_ci("valgrind not found")

    counts = count_instructions(__name__, "counted")

    assert counts["twice"] > 1.5 * counts["once"] > 0


def counted() -> dict[str, object]:
    """What the test before has counted."""
    return {"once": lambda: sum(range(1_000)), "twice": lambda: sum(range(2_000))}


# --- what is written down -----------------------------------------------------------------------


def test_a_record_reads_what_it_wrote(tmp_path: Path) -> None:
    figure = result("a", [1.0, 2.0], "µs", base="b", base_values=[4.0], target=at_most(3.0))
    curve = Curve.of("c", "x", "y", [(1.0, 1.0), (10.0, 10.0)])
    file = tmp_path / "results.json"

    Record().with_found({"one": [figure, curve]}).write(file)

    read = Record.read(file)
    assert read.of("one") == [figure]
    assert [(c.name, c.exponent) for c in read.curves("one")] == [("c", curve.exponent)]


def test_what_is_not_measured_anew_stays() -> None:
    old = Record({"one": [result("a", [1.0], "µs")], "two": [result("b", [1.0], "µs")]})

    new = old.with_found({"two": [result("b", [2.0], "µs")]})

    assert [f.value for name in ("one", "two") for f in new.of(name)] == [1.0, 2.0]


def test_the_page_shows_what_was_found() -> None:
    text = PAGE.read_text()

    # `python -m benchmarks.page` writes it.
    assert text == page(text, Record.read(FILE))


def test_every_benchmark_has_its_place_on_the_page() -> None:
    places = {place["name"] for place in PLACE.finditer(PAGE.read_text())} - {None}

    assert places == set(BENCHMARKS)


def test_every_plot_of_the_page_is_drawn() -> None:
    for image in re.findall(r"\((images/[^)]*)\)", PAGE.read_text()):
        assert (PAGE.parent / image).exists(), image
