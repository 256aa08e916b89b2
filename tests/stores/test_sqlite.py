"""What the SQLite file does beyond the contract: what goes wrong, and what is forgotten."""

from __future__ import annotations

import math
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from grip_edge_middleware.errors import StoreError
from grip_edge_middleware.stores.records import Records
from grip_edge_middleware.stores.shared import SharedStore
from grip_edge_middleware.stores.sqlite import BUSY_TIMEOUT_S, FORGET_AFTER_S, MAX_IDLE, SQLiteShelf
from tests.stores.kills import kill
from tests.stores.test_contract import CODEC, Clock, counter
from tests.stores.test_shelf import NOW, mark, record_of, waits


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = NOW
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.fixture
def shelf(path: Path, clock: Clock) -> Iterator[SQLiteShelf]:
    with closing(SQLiteShelf(path, CODEC, clock=clock)) as shelf:
        yield shelf


def refused(shelf: SQLiteShelf) -> str:
    with pytest.raises(StoreError) as caught:
        mark(shelf, "k")
    return str(caught.value)


# --- what goes wrong --------------------------------------------------------------------------


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "none" / "store.sqlite3"
    shelf = SQLiteShelf(path, CODEC)

    assert refused(shelf) == (
        f"store: {path}: unable to open database file; "
        "does its folder exist, and may this process write there?"
    )
    path.parent.mkdir()
    assert mark(shelf, "k")
    shelf.close()


def test_a_file_that_is_no_database_is_left_as_it_is(shelf: SQLiteShelf, path: Path) -> None:
    path.write_text("a letter to somebody\n" * 200)

    assert "file is not a database; name another file" in refused(shelf)
    assert path.read_text().startswith("a letter to somebody\n")


def test_a_database_of_another_program_is_left_as_it_is(shelf: SQLiteShelf, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE letter (text)")
    before = path.read_bytes()

    assert "is a database of another program; name another file" in refused(shelf)
    assert path.read_bytes() == before


def test_a_file_of_another_version_is_said(shelf: SQLiteShelf, path: Path) -> None:
    mark(shelf, "k")
    shelf.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")

    assert "is of version 99 of its tables, and this is version 1" in refused(shelf)


def test_a_file_that_is_broken_is_said(shelf: SQLiteShelf, path: Path) -> None:
    for number in range(500):
        mark(shelf, str(number))
    shelf.close()
    with path.open("r+b") as file:
        file.seek(4_096)
        file.write(b"\x07" * (path.stat().st_size - 4_096))

    assert "malformed" in refused(shelf)


def test_a_file_that_is_locked_is_said_and_asked_again(shelf: SQLiteShelf, path: Path) -> None:
    mark(shelf, "k")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        text = refused(shelf)
        record = shelf.read(["k"]).get("k")

    assert "database is locked; another process has held it for too long" in text
    assert record is not None, "who reads waits for nobody"
    assert mark(shelf, "k") > record.mark


def test_a_file_that_may_only_be_read_is_said() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "store.sqlite3")
        shelf = SQLiteShelf(path, CODEC)
        mark(shelf, "k")
        shelf.close()
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        with unprivileged():
            text = refused(shelf)
        Path(folder).chmod(0o755)

    assert "attempt to write a readonly database; let this process write to it" in text


@contextmanager
def unprivileged() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


class FullShelf(SQLiteShelf):
    """One on a disk that has no room for another page."""

    def _prepare(self, connection: sqlite3.Connection) -> None:
        super()._prepare(connection)
        connection.execute("PRAGMA max_page_count = 1")  # which is raised to what there is


def test_a_disk_that_is_full_is_said_and_nothing_is_half_written(
    path: Path, shelf: SQLiteShelf, clock: Clock
) -> None:
    mark(shelf, "k")

    def write_much(records: Records) -> None:
        for number in range(1_000):
            records.edit(str(number)).version = "1" * 100

    with closing(FullShelf(path, CODEC, clock=clock)) as full:
        with pytest.raises(StoreError, match="disk is full; make room on its disk"):
            full.write((), write_much)

        assert record_of(full, "0") is None


def test_a_file_that_is_deleted_is_created_again_and_its_numbers_go_on(
    shelf: SQLiteShelf, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10):
        before = mark(shelf, "k")
    path.unlink()
    clock.now -= 5_000.0

    after = shelf.read(["k"])
    assert after.get("k") is None
    assert after.sequence > before
    assert int(after.common.first_version) > 0
    assert path.exists()
    assert "was deleted or replaced, with what waited in it" in caplog.text


def test_numbers_go_on_although_another_process_created_the_file_again(
    shelf: SQLiteShelf, path: Path
) -> None:
    before = mark(shelf, "k")
    path.unlink()
    earlier = Clock()
    earlier.now = NOW - 5_000.0
    with closing(SQLiteShelf(path, CODEC, clock=earlier)) as other:
        mark(other, "k")

    assert mark(shelf, "k") > before


def test_a_store_keeps_what_is_added_while_the_file_cannot_be_opened(tmp_path: Path) -> None:
    folder = tmp_path / "none"
    with closing(SharedStore(SQLiteShelf(folder / "store.sqlite3", CODEC))) as store:
        store.add([counter("blue")], 0.0)
        with pytest.raises(StoreError):
            store.take_in()
        assert (store.pending(), store.is_failing) == (1, True)
        folder.mkdir()

        store.take_in()

        assert (store.pending(), store.is_failing) == (1, False)
        [claim] = store.claim(0.0, limit=9, everything=True)
        assert claim.topic.name == "counter-blue"


# --- the clock --------------------------------------------------------------------------------


@pytest.mark.parametrize("notice", [lambda shelf: mark(shelf, "x"), lambda s: looks(s)])
def test_a_clock_that_is_set_back_holds_nothing_up(
    shelf: SQLiteShelf, clock: Clock, notice: Callable[[SQLiteShelf], object]
) -> None:
    waits(shelf, "k", NOW + 30.0)
    clock.now -= 3_600.0
    notice(shelf)

    assert shelf.next_due(purges=True) == clock.now + 30.0
    record = record_of(shelf, "k")
    assert record is not None
    assert record.due == clock.now + 30.0


def test_a_clock_that_is_set_back_does_not_hold_up_a_confirmation(
    shelf: SQLiteShelf, clock: Clock
) -> None:
    store = SharedStore(shelf, confirm_after_s=[5.0], look_s=math.inf, clock=lambda: 0.0)
    store.add([counter("blue")], 0.0)
    store.take_in()
    [claim] = store.claim(0.0, limit=1)
    store.postpone(replace(claim, published_at=0.0, missing=frozenset({"cdn"})), 0.0)
    clock.now -= 3_600.0
    mark(shelf, "x")
    clock.now += 1.0
    store.release(store.claim(0.0, limit=1), 0.0)

    assert store.next_due() == 5.0


def looks(shelf: SQLiteShelf) -> None:
    shelf.due(shelf.now(), 10, purges=True)


# --- what is forgotten ------------------------------------------------------------------------


def test_what_is_idle_for_a_day_is_forgotten(shelf: SQLiteShelf, clock: Clock) -> None:
    def note(records: Records) -> int:
        record = records.edit("old")
        record.mark, record.version = records.sequence, str(records.sequence * 10**9 + 5)
        return records.sequence

    number = shelf.write((), note)
    waits(shelf, "busy", NOW)
    clock.now += FORGET_AFTER_S + 1.0
    mark(shelf, "new")

    assert record_of(shelf, "old") is None
    assert record_of(shelf, "busy") is not None
    assert record_of(shelf, "new") is not None
    common = shelf.read(()).common
    assert common.forgotten == number
    assert common.first_version == str(number * 10**9 + 5)


def test_what_was_changed_within_a_day_is_remembered(shelf: SQLiteShelf, clock: Clock) -> None:
    mark(shelf, "old")
    clock.now += FORGET_AFTER_S - 1.0
    mark(shelf, "new")

    assert record_of(shelf, "old") is not None


# --- threads and processes --------------------------------------------------------------------


def opened(path: Path) -> list[Path]:
    """Return where this process has the file open."""
    found = []
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that listed them
            found += [file] if file.readlink() == path else []
    return found


def test_threads_that_end_leave_no_connection(shelf: SQLiteShelf, path: Path) -> None:
    for _ in range(5):
        threads = [
            threading.Thread(target=lambda: [shelf.read(["k"]) for _ in range(20)])
            for _ in range(2 * MAX_IDLE)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # SQLite closes a file later, or uses it again: what is open is only told when all are closed.
    assert len(shelf._connections._idle) <= MAX_IDLE
    shelf.close()
    assert opened(path) == []


def test_nothing_is_open_in_a_child(shelf: SQLiteShelf, path: Path) -> None:
    """SQLite's own account of locks is copied, and would be wrong there."""
    mark(shelf, "k")
    assert opened(path)
    pid = os.fork()
    if pid == 0:
        os._exit(len(opened(path)))
    _, status = os.waitpid(pid, 0)

    assert status == 0


def test_a_fork_during_a_write_waits_for_it(shelf: SQLiteShelf) -> None:
    """The child could never write: the lock of a thread that it does not have would be left."""
    is_writing = threading.Event()
    is_over = threading.Event()

    def write_slowly(records: Records) -> None:
        records.edit("k").mark = 1
        is_writing.set()
        is_over.wait(0.2)  # nobody sets it: the fork comes meanwhile

    thread = threading.Thread(target=shelf.write, args=((), write_slowly))
    thread.start()
    is_writing.wait()
    pid = os.fork()
    if pid == 0:
        try:
            number = mark(shelf, "child")
        except BaseException:
            os._exit(2)
        os._exit(0 if number else 1)
    _, status = os.waitpid(pid, 0)
    thread.join()

    assert status == 0
    assert record_of(shelf, "child") is not None
    assert BUSY_TIMEOUT_S > 0.2


def test_what_was_taken_in_is_delivered_although_its_process_is_killed(path: Path) -> None:
    report = kill(path, kills=5, seed=1)

    assert report.acknowledged > 0
    assert (report.lost, report.integrity) == (0, "ok")
