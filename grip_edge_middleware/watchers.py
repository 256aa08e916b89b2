"""Tells other processes of this machine and user what an edge does, while any watches.

A watcher binds a Unix datagram socket in a folder that only its user can enter; whoever writes
looks into that folder once a second at most. So nothing listens in the app.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

from grip_edge_middleware.journal import Entry, build_entry, parse_entry

FOLDER_VARIABLE = "GRIP_EDGE_WATCH"
"""The environment variable that names another folder: for services with a /tmp of their own."""
LOOK_EVERY_S = 1.0
MAX_BYTES = 65_536

_numbers = itertools.count()


class Watchers:
    """Sends each entry to all who watch. `clock` is monotonic.

    A forked child goes on with it as it is: nothing in it waits or is locked.
    """

    def __init__(
        self, folder: Path | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder or watch_folder()
        self._clock = clock
        self._socket: socket.socket | None = None
        self._paths: list[str] = []
        self._look_at = 0.0

    def read(self, entry: Entry) -> None:
        """Send an entry to whoever watches now."""
        if self.is_watched():
            data = build_entry(entry)
            for path in self._paths.copy():
                with contextlib.suppress(OSError):  # one that is full is no concern of the others
                    self._send(data, path)

    def is_watched(self) -> bool:
        """Whether anybody watches."""
        with contextlib.suppress(OSError):
            return bool(self._watching())
        return False

    def close(self) -> None:
        """Send no more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _watching(self) -> list[str]:
        now = self._clock()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self._paths = list(_sockets(self._folder))
        return self._paths

    def _send(self, data: bytes, path: str) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        try:
            self._socket.sendto(data, path)
        except (ConnectionRefusedError, FileNotFoundError):
            self._paths.remove(path)  # who watched has gone


class Watch:
    """Receives what the edges of this user's processes do, while a block lasts.

    with Watch() as watch:
        for entry in watch.entries(timeout_s=1.0): ...
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or watch_folder()
        # Short: the path of a socket has room for about a hundred bytes.
        self._path = self._folder / f"{os.getpid()}-{next(_numbers)}.sock"

    def __enter__(self) -> Self:
        _make_private(self._folder)
        for path in _sockets(self._folder):
            _remove_if_stale(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._path.unlink(missing_ok=True)
        self._socket.bind(str(self._path))
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        self._socket.close()

    def fileno(self) -> int:
        """Return what a selector or an event loop waits for."""
        return self._socket.fileno()

    def entries(self, timeout_s: float | None = None) -> Iterator[Entry]:
        """Yield what comes, until nothing has come for `timeout_s`; 0 is what is there already."""
        while True:
            self._socket.settimeout(timeout_s)
            try:
                data = self._socket.recv(MAX_BYTES)
            except (TimeoutError, BlockingIOError):
                return
            with contextlib.suppress(ValueError):
                yield parse_entry(data)


def watch_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where watchers of this user are found."""
    named = environ.get(FOLDER_VARIABLE)
    return Path(named or Path(tempfile.gettempdir(), f"grip-edge-watch-{os.getuid()}"))


def _sockets(folder: Path) -> Iterator[str]:
    """Yield the sockets of a folder that is this user's alone; of any other, none."""
    if not folder.is_dir() or not _is_private(folder):
        return
    with os.scandir(folder) as found:
        for each in found:
            if each.name.endswith(".sock"):
                yield each.path


def _is_private(folder: Path) -> bool:
    found = folder.lstat()
    is_ours = found.st_uid == os.getuid() and stat.S_ISDIR(found.st_mode)
    return is_ours and not found.st_mode & 0o077


def _make_private(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    if not _is_private(folder):
        raise PermissionError(
            f"{folder} is no folder that only this user can enter: name another, of mode 700, in "
            f"{FOLDER_VARIABLE}"
        )


def _remove_if_stale(path: str) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink(missing_ok=True)
