"""Write the tables of docs/performance.md, and its plots, from `benchmarks/results.json`.

    python -m benchmarks.page

A table stands between two comments, `<!-- benchmark: routes -->` and `<!-- end -->`. What is
written around them stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.record import FILE, Record
from benchmarks.results import Curve, Result
from benchmarks.screen import number, times

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "performance.md"
IMAGES = DOCS / "images" / "benchmarks"
PLACE = re.compile(r"<!-- (benchmark: (?P<name>\w+)|machine) -->\n.*?<!-- end -->", re.DOTALL)
MET = {True: " ✓", False: " ✗", None: ""}


def page(text: str, record: Record) -> str:
    """Return the page with its tables filled anew."""

    def fill(place: re.Match[str]) -> str:
        name = place["name"]
        lines = machine(record) if name is None else section(name, record)
        return "\n".join([f"<!-- {place[1]} -->", *lines, "<!-- end -->"])

    return PLACE.sub(fill, text)


def machine(record: Record) -> Iterator[str]:
    """Yield what the figures were measured on."""
    measured_on = record.measured_on
    if not measured_on:
        return
    on, versions = measured_on["machine"], measured_on["versions"]
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    yield f"{on['processor']}, {on['cores']} cores, {on['memory_gb']} GB, {on['system']};"
    yield f"{measured_on['date'][:10]}. {said}."


def section(name: str, record: Record) -> Iterator[str]:
    """Yield the table of one benchmark, and the plot of its curves."""
    if results := record.of(name):
        yield ""
        yield "| | ours | quartiles | base | | ratio | target |"
        yield "|---|---:|---:|---:|---|---:|---:|"
        yield from map(_row, results)
    if curves := record.curves(name):
        yield ""
        yield "| | grows with | exponent | |"
        yield "|---|---|---:|---|"
        yield from map(_curve, curves)
        yield ""
        yield f"![How it grows: {name}](images/benchmarks/{name}.svg)"
    yield ""


def _row(found: Result) -> str:
    low, high = found.low, found.high
    is_spread = low is not None and high is not None and low != high
    cells = (
        found.name,
        f"{number(found.value)} {found.unit}",
        f"{number(low or 0)} to {number(high or 0)}" if is_spread else "",
        "" if found.base_value is None else number(found.base_value),
        found.base_name,
        "" if found.ratio is None else times(found.ratio),
        found.target + MET[found.met],
    )
    return f"| {' | '.join(cells)} |".replace("|  ", "| ")


def _curve(found: Curve) -> str:
    points = ", ".join(f"{number(y)} at {x:,.0f}" for x, y in found.points)
    return f"| {found.name} | {found.x_name} | {found.exponent:.2f} | {points} {found.y_name} |"


def draw(record: Record) -> None:
    """Draw all plots of the page."""
    from benchmarks import plots

    plots.draw_ratios(
        (r for name in record.found for r in record.of(name) if r.target.endswith("x")),
        IMAGES / "ratios.svg",
    )
    for name in record.found:
        if curves := record.curves(name):
            plots.draw_curves(curves, IMAGES / f"{name}.svg")


def main() -> None:
    """Write the page and its plots."""
    record = Record.read(FILE)
    PAGE.write_text(page(PAGE.read_text(), record))
    draw(record)


if __name__ == "__main__":
    main()
