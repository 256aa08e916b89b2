"""`grip-edge watch`, by what it shows of entries that are sent to it."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from grip_edge_middleware.cli import main
from grip_edge_middleware.cli.board import MAX_TOPICS, Board, describe
from grip_edge_middleware.cli.status import OK, WRONG_USE
from grip_edge_middleware.cli.watch import view
from grip_edge_middleware.journal import Entry, parse_entry
from grip_edge_middleware.watchers import FOLDER_VARIABLE, Watchers
from tests.recording import DEADLINE_S

NOW = 1_790_000_000.0
PUBLISH = Entry(
    "publish", NOW, ("counter-a",), 1, "grip http://p:5561", took_s=0.004, behind_s=0.021, pid=7
)
REFUSED = Entry("purge", NOW, ("counter-a", "%any"), 2, "varnish http://c", error="503", pid=7)
HEALTH = Entry(
    "health",
    NOW,
    pid=7,
    detail={
        "pending": 3,
        "targets": {
            "grip http://p:5561": {"state": "ok", "error": ""},
            "varnish http://c": {"state": "failing", "error": "503"},
        },
    },
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "watch"
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return folder


@contextmanager
def sending(folder: Path, *entries: Entry) -> Iterator[None]:
    """Have the entries sent again and again while a block lasts, to whoever watches."""
    is_over = threading.Event()

    def send() -> None:
        watchers = Watchers(folder, clock=iter(range(10**9)).__next__)
        while not is_over.wait(0.01):
            for entry in entries:
                watchers.read(entry)
        watchers.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def shown(board: Board, *, now: float = NOW) -> str:
    console = Console(width=140, color_system=None)
    with console.capture() as captured:
        console.print(view(board, now=now, height=50))
    return captured.get()


def test_json_is_the_entries_as_they_came(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sending(folder, PUBLISH):
        status = main(["watch", "--json", "--count", "2"])

    lines = capsys.readouterr().out.splitlines()
    assert status == OK
    assert [parse_entry(line.encode()) for line in lines] == [PUBLISH, PUBLISH]


def test_what_is_no_terminal_gets_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sending(folder, PUBLISH, REFUSED):
        main(["watch", "--count", "2"])

    lines = sorted(line.partition(" ")[2] for line in capsys.readouterr().out.splitlines())
    assert lines == [
        "publish   counter-a at grip http://p:5561 in 4 ms 21 ms after the change (pid 7)",
        "purge     counter-a, %any at varnish http://c error: 503 (pid 7)",
    ]


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_it_says_what_it_waits_for(
    how: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["watch", "--for", "2.3", *how])

    out, err = capsys.readouterr()
    assert (status, out) == (OK, "")
    assert f"waiting for processes of the user {os.getuid()}" in err
    assert str(folder) in err
    assert FOLDER_VARIABLE in err


@pytest.mark.parametrize("option", ["--for=0", "--for=-1", "--for=nan", "--count=0"])
def test_a_limit_is_above_nothing(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", option]) == WRONG_USE
    assert "--for and --count take a number above 0" in capsys.readouterr().err


def test_a_folder_of_somebody_else_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir(mode=0o755)

    assert main(["watch", "--for", "1"]) == WRONG_USE
    assert "is no folder that only this user can enter" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_good_end(number: signal.Signals, folder: Path) -> None:
    command = [sys.executable, "-m", "grip_edge_middleware", "watch", "--json"]
    with (
        sending(folder, PUBLISH),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE_S)

    assert (process.returncode, err) == (OK, b"")
    assert list(folder.iterdir()) == []


def test_a_reader_that_goes_is_a_good_end(folder: Path) -> None:
    command = [sys.executable, "-m", "grip_edge_middleware", "watch"]
    with (
        sending(folder, PUBLISH),
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(DEADLINE_S) == OK
        assert process.stderr.read() == b""


def test_a_terminal_gets_the_view(folder: Path) -> None:
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "grip_edge_middleware", "watch"]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "140", "LINES": "50"}
    with (
        sending(folder, PUBLISH, replace(HEALTH, at=time.time())),
        subprocess.Popen(command, stdout=theirs, env=environ) as process,
    ):
        os.close(theirs)
        seen = read_until(terminal, b"3 pending")
        process.send_signal(signal.SIGINT)
        read_until(terminal, None)
        assert process.wait(DEADLINE_S) == OK
    os.close(terminal)

    assert b"1 processes" in seen


def read_until(terminal: int, wanted: bytes | None) -> bytes:
    """Read what a program writes to its terminal, until it has written this, or ends."""
    seen, until = b"", time.monotonic() + DEADLINE_S
    while wanted is None or wanted not in seen:
        assert time.monotonic() < until, seen
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65_536)
            except OSError:  # it has ended
                break
    return seen


def test_the_view_has_topics_targets_and_what_came_last() -> None:
    board = Board()
    again = replace(PUBLISH, behind_s=None)  # what a quiet time is followed by
    change = Entry("change", NOW, ("counter-a",), 1, pid=7)
    failure = Entry("failure", NOW, ("%any",), 1, "varnish http://c", pid=7)
    for entry in (change, PUBLISH, again, failure, REFUSED, HEALTH):
        board.note(entry)

    found = shown(board, now=NOW + 2)

    assert "1 processes   3 pending   change 0.1/s   purge 0.1/s   publish 0.2/s" in found
    rows = [line.split() for line in found.splitlines()]
    assert ["counter-a", "1", "2", "21", "ms", "2", "s", "ago"] in rows
    assert ["grip", "http://p:5561", "ok", "2", "0", "4", "ms"] in rows
    assert ["varnish", "http://c", "failing", "2", "2", "-", "503"] in rows
    assert "error: 503" in found
    assert not [row for row in rows if row[:1] == ["%any"]]


def test_a_process_that_is_silent_counts_no_more() -> None:
    board = Board()
    board.note(HEALTH)

    assert "1 processes   3 pending" in shown(board, now=NOW + 299)
    assert "0 processes   0 pending" in shown(board, now=NOW + 301)


def test_the_view_says_what_it_waits_for() -> None:
    assert "waiting for processes of the user" in shown(Board())


def test_what_a_stranger_names_does_nothing_to_the_terminal() -> None:
    board = Board()
    board.note(Entry("change", NOW, ("a\x1b]0;gone\x07[bold]",), 1))

    found = shown(board)

    assert "\x1b" not in found
    assert r"a\x1b]0;gone\x07[bold]" in found


def test_the_quietest_topics_are_forgotten_first() -> None:
    board = Board()
    board.note(Entry("change", NOW, ("kept",), 1))
    for number in range(MAX_TOPICS):
        board.note(Entry("change", NOW, (f"topic-{number}", "kept"), 2))

    assert len(board.topics) == MAX_TOPICS
    assert "kept" in board.topics
    assert "topic-0" not in board.topics


def test_of_many_names_the_first_are_shown() -> None:
    line = describe(Entry("change", NOW, ("a", "b", "c", "d"), 1_000))

    assert line.endswith("change    a, b, c and 997 more")


def test_an_entry_is_json_that_others_read(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    with sending(folder, HEALTH):
        main(["watch", "--json", "--count", "1"])

    assert json.loads(capsys.readouterr().out)["detail"]["pending"] == 3
