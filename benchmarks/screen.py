"""What the terminal shows: how far it is, and a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.results import Curve, Found, Result

WIDTH = 180
MET = {True: "[green]✓[/]", False: "[red]✗[/]", None: ""}


def console() -> Console:
    """Return the terminal; a file is as wide as the tables are."""
    found = Console()
    return found if found.is_terminal else Console(width=WIDTH)


def progress(on: Console) -> Progress:
    """Return the bar of a run."""
    return Progress(
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        "{task.description}",
        TimeElapsedColumn(),
        console=on,
        transient=True,
    )


def table(title: str, found: Iterable[Found]) -> Group:
    """Return what one benchmark found."""
    found = list(found)
    figures = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    figures.add_column("", max_width=60)
    for column in ("ours", "quartiles", "base"):
        figures.add_column(column, justify="right")
    figures.add_column("", max_width=40)
    for column in ("ratio", "target", ""):
        figures.add_column(column, justify="right")
    for one in found:
        if isinstance(one, Result):
            figures.add_row(*_cells(one))
    shown = [figures] if figures.row_count else [f"[bold]{title}[/]"]
    return Group(*shown, *(_line(one) for one in found if isinstance(one, Curve)))


def _cells(found: Result) -> tuple[str, ...]:
    low, high = found.low, found.high
    is_spread = low is not None and high is not None and low != high
    return (
        found.name,
        f"{number(found.value)} {found.unit}",
        f"{number(low or 0)} to {number(high or 0)}" if is_spread else "",
        "" if found.base_value is None else number(found.base_value),
        found.base_name,
        "" if found.ratio is None else times(found.ratio),
        found.target,
        MET[found.met],
    )


def _line(found: Curve) -> str:
    points = ", ".join(f"{number(x)}: {number(y)}" for x, y in found.points)
    return f"{found.name}: {found.x_name}^{found.exponent:.2f} ({found.y_name}: {points})"


def number(value: float) -> str:
    """Write three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.2g}"


def times(ratio: float) -> str:
    """Write a ratio."""
    return f"{number(ratio)}x"
