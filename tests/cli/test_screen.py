"""What is printed, for whom."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from grip_edge_middleware.cli.screen import Screen, printable

PRINTS = """
from grip_edge_middleware.cli.screen import Screen
screen = Screen()
screen.line("all ", ("well", "bold green"))
screen.table(["key"], [[("counter-a", "cyan")]])
"""


def test_people_are_shown_lines_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()

    screen.line("all ", ("well", "green"))
    screen.table(["key", "target"], [["counter-a", "varnish"], ["b", ("fastly", "red")]])
    screen.json({"not": "shown"})

    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "all well",
        "key        target",
        "counter-a  varnish",
        "b          fastly",
    ]


def test_programs_are_shown_json(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(is_json=True)

    screen.line("not shown")
    screen.table(["not"], [["shown"]])
    screen.json({"keys": ["é"]})

    assert json.loads(capsys.readouterr().out) == {"keys": ["é"]}


def test_a_long_line_in_a_pipe_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    long = "word " * 100

    screen.line(long)
    screen.table(["words"], [[long]])

    assert capsys.readouterr().out.count("\n") == 3


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().line("[bold]topics[0][/]")

    assert capsys.readouterr().out == "[bold]topics[0][/]\n"


def test_what_a_stranger_says_does_nothing_to_the_terminal() -> None:
    assert printable("a\x1b[2Jb\rc\u202e") == "a\\x1b[2Jb\\rc\\u202e"


@pytest.mark.parametrize(("environ", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_has_colours_unless_they_are_unwanted(
    environ: dict[str, str], has_colours: bool
) -> None:
    ours, theirs = pty.openpty()
    inherited = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    printing = subprocess.Popen(
        [sys.executable, "-c", PRINTS],
        stdout=theirs,
        env={**inherited, "TERM": "xterm-256color", **environ},
    )
    assert printing.wait() == 0
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)

    assert "counter-a" in shown
    assert ("\x1b[" in shown) == has_colours
