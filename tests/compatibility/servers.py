"""Apps on their servers: a process for each, and the CDN and GRIP proxy that it tells.

The next one is started while the tests of one run.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from launch import end_with_parent, free_ports, process_tree

from tests.compatibility.matrix import ROOT, Pair
from tests.recording import DEADLINE_S, RecordingServer

NOTHING: Mapping[str, str] = MappingProxyType({})
_ports = free_ports()


@dataclass(frozen=True, slots=True)
class Answered:
    """What an app answered. Header names are lower case; lines of one name are joined."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def keys(self) -> list[str]:
        return self.headers.get("surrogate-key", "").split()


class Process:
    """A server's process on a free port, and its log."""

    def __init__(self, command: Sequence[str], folder: Path, **environ: str) -> None:
        self.port = next(_ports)
        self._log = folder / f"{self.port}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(port=self.port) for part in command)],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples" / "edge")]),
                    **environ,
                },
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection, as soon as there can be one."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
            try:
                connection.connect()
            except OSError:
                assert self._process.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                threading.Event().wait(0.02)
            else:
                return connection

    @contextmanager
    def open(
        self, method: str, path: str, headers: Mapping[str, str] = NOTHING, body: bytes = b""
    ) -> Iterator[http.client.HTTPResponse]:
        """Ask on a connection of one's own; the body is yet to be read."""
        connection = self.connect()
        try:
            connection.request(method, path, body or None, dict(headers))
            yield connection.getresponse()
        finally:
            connection.close()

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] = NOTHING, body: bytes = b""
    ) -> Answered:
        with self.open(method, path, headers, body) as response:
            joined: dict[str, str] = {}
            for name, value in response.getheaders():
                known = joined.get(name.lower())
                joined[name.lower()] = value if known is None else f"{known}, {value}"
            return Answered(response.status, joined, response.read())

    def stop(self) -> None:
        """Have it stop, as it is stopped in production. It may take its time."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Leave nothing of it."""
        tree = process_tree(self._process.pid)
        if self._process.poll() is None:
            for pid in tree:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()


class Served(Process):
    """An app on a server, and what it tells the CDN and the GRIP proxy."""

    def __init__(self, pair: Pair, folder: Path) -> None:
        self.pair = pair
        self.told = RecordingServer()
        self.told.__enter__()
        super().__init__(pair.command, folder, RECORDING_PORT=str(self.told.port))

    def end(self) -> None:
        self.kill()
        self.told.close()


class Fleet:
    """Serves one pair after the other, in the order in which they are needed."""

    def __init__(self, pairs: Sequence[Pair], folder: Path) -> None:
        self._following = iter([*pairs[1:], None])
        self._folder = folder
        self._ahead: Served | None = Served(pairs[0], folder)

    def next(self, pair: Pair) -> Served:
        """Return the one that is served now, and start the next."""
        served = self._ahead
        assert served is not None
        assert served.pair == pair
        following = next(self._following)
        self._ahead = None if following is None else Served(following, self._folder)
        return served

    def end(self) -> None:
        if self._ahead is not None:
            self._ahead.end()
