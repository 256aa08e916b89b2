"""`grip-edge watch`: what the edges of this user's processes do, as they do it."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from grip_edge_middleware.cli.board import Board, TargetRow, describe, milliseconds
from grip_edge_middleware.cli.screen import Screen, printable, screen_options
from grip_edge_middleware.cli.status import OK, WrongUse
from grip_edge_middleware.journal import Entry, build_entry
from grip_edge_middleware.watchers import FOLDER_VARIABLE, Watch, watch_folder

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

# How soon it is said that nothing comes, and how often the view is drawn anew.
SILENT_S = 2.0
DRAW_EVERY_S = 0.25
STYLES = {"change": "cyan", "purge": "yellow", "render": "blue", "publish": "green"}
STATES = {"ok": "green", "failing": "yellow", "down": "bold red"}


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say how it is called."""
    parser = commands.add_parser(
        "watch",
        parents=[screen_options()],
        help="show what the running apps change, purge and publish, as it happens",
        description="Show what the processes of this user, on this machine, change, purge and "
        "publish: a live view on a terminal, else a line for each entry, until Ctrl-C.",
    )
    parser.add_argument("--for", dest="for_s", type=float, metavar="SECONDS", help="end after that")
    parser.add_argument("--count", type=int, metavar="N", help="end after that many entries")
    parser.add_argument("--lines", action="store_true", help="lines, on a terminal too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show what comes until it is over; Ctrl-C is the usual end."""
    if (options.for_s is not None and not options.for_s > 0) or (
        options.count is not None and options.count < 1
    ):
        raise WrongUse("--for and --count take a number above 0")
    screen = Screen.of(options)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Watch() as watch, contextlib.suppress(KeyboardInterrupt):
            coming = limited(watch, for_s=options.for_s, count=options.count)
            if sys.stdout.isatty() and not options.json and not options.lines:
                show_live(coming)
            else:
                show_lines(coming, screen)
    except (BrokenPipeError, SystemExit):  # `grip-edge watch | head`; rich raises the latter
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        raise WrongUse(str(error)) from None
    return OK


def limited(
    watch: Watch,
    *,
    for_s: float | None = None,
    count: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Entry | None]:
    """Yield what comes, and None now and then while nothing does, until the limit."""
    until = clock() + (math.inf if for_s is None else for_s)
    left = math.inf if count is None else count
    while (now := clock()) < until:
        for entry in watch.entries(timeout_s=min(DRAW_EVERY_S, until - now)):
            yield entry
            left -= 1
            if not left or clock() >= until:
                return
        yield None


def show_lines(coming: Iterator[Entry | None], screen: Screen) -> None:
    """Print a line for each entry: JSON as it came, or a sentence."""
    is_told, silent_from = False, time.monotonic()
    for entry in coming:
        if entry is None:
            if not is_told and time.monotonic() - silent_from >= SILENT_S:
                print(waiting(), file=sys.stderr, flush=True)  # noqa: T201
                is_told = True
            continue
        is_told = True
        if screen.is_json:
            print(build_entry(entry).decode(), flush=True)  # noqa: T201
        else:
            screen.line((describe(entry), style(entry)))


def show_live(coming: Iterator[Entry | None]) -> None:
    """Draw the view anew a few times a second."""
    from rich.live import Live

    board, drawn_at = Board(), 0.0
    with Live(auto_refresh=False, screen=False) as live:
        for entry in coming:
            if entry is not None:
                board.note(entry)
            if entry is None or time.monotonic() - drawn_at >= DRAW_EVERY_S:
                lines = live.console.height
                live.update(view(board, now=time.time(), height=lines), refresh=True)
                drawn_at = time.monotonic()
        live.update(view(board, now=time.time(), height=live.console.height), refresh=True)


def waiting() -> str:
    """Return what to say while nothing comes."""
    return (
        f"waiting for processes of the user {os.getuid()} that use an edge: they look for watchers "
        f"once a second, in {watch_folder()}; where /tmp is not the same for them, as in a service "
        f"or a container, give them and this the same folder in {FOLDER_VARIABLE}"
    )


def style(entry: Entry) -> str:
    """Return how an entry looks."""
    return "bold red" if entry.error or entry.kind == "failure" else STYLES.get(entry.kind, "")


def view(board: Board, *, now: float, height: int) -> Group:
    """Return the whole view, for a terminal of so many lines."""
    from rich.console import Group

    if not board.count:
        return Group(waiting())
    room = max(3, (height - 12 - len(board.states(now))) // 2)
    tail = [_cell(describe(entry), style(entry)) for entry in [*board.tail][-room:]]
    return Group(
        _cell(_summary(board, now), "bold"),
        "",
        _targets(board, now),
        "",
        _topics(board, now, room),
        "",
        *tail,
    )


def _summary(board: Board, now: float) -> str:
    health = board.health(now)
    pending = sum(int(detail.get("pending", 0)) for detail in health.values())
    rates = (f"{kind} {board.rate(kind, now):.1f}/s" for kind in ("change", "purge", "publish"))
    return f"{len(health)} processes   {pending} pending   {'   '.join(rates)}"


def _targets(board: Board, now: float) -> Table:
    table = _table("target", "state", "requests", "failures", "took", "error")
    for name, states in board.states(now).items():
        row = board.targets.get(name, TargetRow())
        worst = max((str(s.get("state", "")) for _, s in states), key=_badness, default="")
        error = row.error or next((str(s["error"]) for _, s in states if s.get("error")), "")
        cells = (str(row.requests), str(row.failures), milliseconds(row.took_s), error)
        table.add_row(_cell(name), _cell(worst, STATES.get(worst, "")), *map(_cell, cells))
    return table


def _topics(board: Board, now: float, room: int) -> Table:
    table = _table("topic", "changes", "publishes", "behind", "last")
    for name, row in list(reversed(board.topics.items()))[:room]:
        counts = (str(row.counts["change"]), str(row.counts["publish"]))
        table.add_row(
            *map(_cell, (name, *counts, milliseconds(row.behind_s), f"{now - row.at:.0f} s ago"))
        )
    return table


def _table(*columns: str) -> Table:
    from rich.table import Table

    return Table(*columns, box=None, pad_edge=False, header_style="bold", expand=False)


def _cell(text: str, style: str = "") -> Text:
    from rich.text import Text as Cell

    return Cell(printable(text), style, no_wrap=True, overflow="ellipsis")


def _badness(state: str) -> int:
    return ("", "ok", "failing", "down").index(state) if state in STATES else 0
