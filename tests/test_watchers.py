"""Who watches is told, and nobody else is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from grip_edge_middleware.journal import Entry, build_entry, parse_entry
from grip_edge_middleware.watchers import FOLDER_VARIABLE, Watch, Watchers, watch_folder

ENTRY = Entry(
    "purge", 7.5, names=("counter-a",), count=1, target="varnish", took_s=0.25, behind_s=0.5, pid=3
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "watch"


@pytest.fixture
def watchers(folder: Path) -> Iterator[Watchers]:
    with closing(Watchers(folder)) as watchers:
        yield watchers


def test_an_entry_reads_as_it_was_written() -> None:
    assert parse_entry(build_entry(ENTRY)) == ENTRY


@pytest.mark.parametrize(
    "data", [b"", b"7", b"[]", b'{"kind": "x", "at": 1}', b'{"kind": "purge"}']
)
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no entry|Expecting"):
        parse_entry(data)


def test_all_who_watch_are_told(folder: Path, watchers: Watchers) -> None:
    with Watch(folder) as one, Watch(folder) as other:
        watchers.read(ENTRY)

        assert list(one.entries(0)) == list(other.entries(0)) == [ENTRY]


def test_who_begins_to_watch_is_found_within_a_second(folder: Path) -> None:
    now = 0.0
    with closing(Watchers(folder, clock=lambda: now)) as watchers:
        watchers.read(ENTRY)
        with Watch(folder) as watch:
            now = 0.9
            assert not watchers.is_watched()
            now = 1.0
            watchers.read(ENTRY)
            assert list(watch.entries(0)) == [ENTRY]


def test_who_has_gone_is_told_no_more_and_leaves_nothing(folder: Path, watchers: Watchers) -> None:
    with Watch(folder):
        watchers.read(ENTRY)

    watchers.read(ENTRY)

    assert not watchers.is_watched()
    assert list(folder.iterdir()) == []


def test_what_a_killed_watcher_left_is_cleared_away(folder: Path) -> None:
    gone = Watch(folder)
    gone.__enter__()
    gone._socket.close()

    with Watch(folder):
        assert len(list(folder.iterdir())) == 1


def test_a_watcher_that_does_not_read_holds_up_nobody(folder: Path, watchers: Watchers) -> None:
    with Watch(folder) as watch:
        for _ in range(10_000):
            watchers.read(ENTRY)

        assert 0 < len(list(watch.entries(0))) < 10_000


@pytest.mark.parametrize("full", [0, 1])
def test_one_that_is_full_keeps_nothing_from_another(
    full: int, folder: Path, watchers: Watchers
) -> None:
    with Watch(folder) as one, Watch(folder) as other:
        reading = (other, one)[full]
        for _ in range(1_000):
            watchers.read(ENTRY)

            assert list(reading.entries(0)) == [ENTRY]


@pytest.mark.parametrize("gone", [0, 1])
def test_one_that_has_gone_keeps_nothing_from_another(
    gone: int, folder: Path, watchers: Watchers
) -> None:
    with Watch(folder) as one, Watch(folder) as other:
        watchers.read(ENTRY)
        leaving, staying = ((one, other), (other, one))[gone]
        list(staying.entries(0))
        leaving._socket.close()
        watchers.read(ENTRY)

        assert list(staying.entries(0)) == [ENTRY]


def test_a_folder_that_others_can_enter_is_not_looked_into(
    folder: Path, watchers: Watchers
) -> None:
    with Watch(folder) as watch:
        folder.chmod(0o755)

        watchers.read(ENTRY)

        assert list(watch.entries(0)) == []
        with pytest.raises(PermissionError, match="mode 700"):
            Watch(folder).__enter__()


def test_the_folder_is_the_users_or_the_one_that_is_named() -> None:
    assert watch_folder({}).name == f"grip-edge-watch-{os.getuid()}"
    assert watch_folder({FOLDER_VARIABLE: "/run/shop"}) == Path("/run/shop")
