"""Where the results of a command go: text and tables for people, or JSON for programs.

    screen = Screen.of(options)          # the options of `screen_options`
    screen.line("purged ", ("counter-a", "cyan"))
    screen.table(["key", "target"], [["counter-a", "varnish"]])
    screen.json({"keys": ["counter-a"]})

`line` and `table` say nothing with `--json`, and `json` says nothing without, so a command says
both. Colours are left out where nobody sees them: in a pipe, or with NO_COLOR.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self

from grip_edge_middleware.cli.status import WrongUse

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Said = str | tuple[str, str]
"""A text, or one with its style, as in `("refused", "bold red")`. Markup means nothing in it."""

# Nothing is wrapped where it is no terminal that shows it: a program may read it line by line.
WIDE = 1_000_000


def screen_options() -> argparse.ArgumentParser:
    """Return the options of the commands that show something, for argparse's `parents`."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--json", action="store_true", help="print JSON, for programs")
    return options


class Screen:
    """Prints to stdout. WrongUse if rich is missing, which JSON does without."""

    def __init__(self, *, is_json: bool = False) -> None:
        self.is_json = is_json
        self._console = None if is_json else _console()

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Return the screen that `screen_options` ask for."""
        return cls(is_json=options.json)

    def line(self, *parts: Said) -> None:
        """Print a line."""
        if self._console is not None:
            self._console.print(*map(_text, parts), sep="", soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Said]]) -> None:
        """Print a table."""
        if self._console is None:
            return
        from rich.table import Table

        table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for row in rows:
            table.add_row(*map(_text, row))
        self._console.print(table)

    def json(self, value: object) -> None:
        """Print a JSON document, in one line."""
        if self.is_json:
            print(json.dumps(value), flush=True)  # noqa: T201


def printable(text: str) -> str:
    """Return a text of which nothing does anything to a terminal: it may come from a stranger."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _text(said: Said) -> Text:
    from rich.text import Text

    text, style = (said, "") if isinstance(said, str) else said
    return Text(printable(text), style)


def _console() -> Console:
    try:
        from rich.console import Console
    except ImportError as error:
        hint = "pip install 'grip-edge-middleware[cli]', or ask for --json"
        raise WrongUse(f"this needs the cli extra: {error}; {hint}") from None
    # https://no-color.org/: rich would leave bold.
    is_plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        highlight=False,
        color_system=None if is_plain else "auto",
        width=None if sys.stdout.isatty() else WIDE,
    )
