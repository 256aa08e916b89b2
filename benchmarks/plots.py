"""Plots of what benchmarks found, as SVG for the documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from benchmarks.results import Curve, Result

mpl.use("svg")
# Text stays text, and the same figures are the same file.
mpl.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "grip-edge",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "figure.facecolor": "white",
    "legend.frameon": False,
}
OURS, PEER, WITHIN, BEYOND = "#1f77b4", "#b0b0b0", "#2a9d4a", "#d1495b"
COLOURS = (
    OURS,
    "#e08214",
    "#2a9d4a",
    "#8856a7",
    "#d1495b",
    "#7f7f7f",
    "#17becf",
    "#bcbd22",
    "#8c564b",
)


def draw_curves(curves: Sequence[Curve], file: Path) -> None:
    """Draw how several quantities grow, each with its exponent."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for curve, colour in zip(curves, COLOURS, strict=False):
        label = f"{curve.name}: n^{curve.exponent:.2f}"
        axes.loglog(*zip(*curve.points, strict=True), "o-", color=colour, label=label, ms=4, lw=1.5)
    _write_plainly(axes.xaxis)
    _write_plainly(axes.yaxis)
    axes.set_xlabel(curves[0].x_name)
    axes.set_ylabel(curves[0].y_name)
    axes.grid(visible=True, which="major", color="#e8e8e8")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _save(figure, file)


def draw_ratios(results: Iterable[Result], file: Path) -> None:
    """Draw each figure beside its base: what is left of the line is less than that."""
    shown = [result for result in results if result.ratio is not None and result.ratio > 0]
    figure = Figure(figsize=(7.6, 0.9 + 0.24 * len(shown)), layout="constrained")
    axes = figure.subplots()
    for row, result in enumerate(reversed(shown)):
        _draw_ratio(axes, row, result)
    names = [f"{result.name} / {result.base_name}" for result in reversed(shown)]
    axes.set_yticks(range(len(shown)), names, fontsize=7.5)
    axes.set_xscale("log")
    _write_plainly(axes.xaxis)
    axes.axvline(1.0, color="#888888", lw=1)
    axes.set_xlabel("times the base; | is the target")
    axes.grid(visible=True, axis="x", color="#e8e8e8")
    axes.set_axisbelow(True)
    _save(figure, file)


def _draw_ratio(axes: Axes, row: int, result: Result) -> None:
    assert result.ratio is not None
    colour = {True: WITHIN, False: BEYOND, None: PEER}[result.met]
    axes.plot([1.0, result.ratio], [row, row], color=colour, lw=3, solid_capstyle="butt")
    axes.plot([result.ratio], [row], "o", color=colour, ms=4)
    if result.target.endswith("x"):
        limit = float(result.target.strip("≤≥ x").replace(",", ""))
        axes.plot([limit], [row], "|", color="black", ms=9)


def _write_plainly(axis: Axis) -> None:
    """100 rather than 10², and only powers of ten, unless there is hardly one."""
    low, high = axis.get_view_interval()
    is_narrow = high < 30 * low
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(StrMethodFormatter("{x:g}") if is_narrow else NullFormatter())


def _save(figure: Figure, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
