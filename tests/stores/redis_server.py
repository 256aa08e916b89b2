"""A Redis server for tests: on a free port, with nothing on disk, gone afterwards.

    with running() as server:
        RedisShelf(server.url, codec)

Needs the Debian package redis-server, or valkey-server. Never touches a server that it did not
start.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from launch import end_with_parent, free_ports
from redis import Redis

from tests.missing import skip_outside_ci

PROGRAMS = ("redis-server", "valkey-server")
START_TIMEOUT_S = 30.0
# Another program may take a port between the look and the start.
PORTS_TO_TRY = 5

# Of the server that tests share; see `conftest.py`.
shared_url = ""


class RedisFailed(Exception):  # noqa: N818 - a state, as in "edge failed"
    """The server failed; the text ends with what it said."""


class RedisServer:
    """A server in a folder, with the options of its configuration file."""

    def __init__(self, folder: Path, *options: str, file: Path | None = None) -> None:
        self._folder = folder
        self._options = options
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "redis.sock"
        self._file = file
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, on the port that it had or a free one; return once it answers."""
        ports = iter([self.port]) if self.port else islice(free_ports(), PORTS_TO_TRY)
        for port in ports:
            process = self._run(port)
            if self._answers_in_time(process):
                self.port = port
                return
        raise RedisFailed(f"redis-server ended at start:\n{self._log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart_empty(self) -> None:
        self.stop()
        self.start()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Have it take connections, but answer nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def client(self) -> Redis:
        """Return a client by the socket in its folder: whoever has the port, this is no other."""
        return Redis(unix_socket_path=str(self.socket), decode_responses=True)

    def _run(self, port: int) -> subprocess.Popen[bytes]:
        settings: dict[str, object] = {
            "port": port,
            "bind": "127.0.0.1",
            "unixsocket": self.socket,
            "dir": self._folder,
            "save": "",
            "appendonly": "no",
        }
        command = [find_program(), *([str(self._file)] if self._file else [])]
        for name, value in settings.items():
            command += [f"--{name}", str(value)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                # Its own session: Ctrl-C reaches only the tests, which stop it in order.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        return self._process

    def _answers_in_time(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait until the server answers; False if it ended."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None:
            if self._answers():
                return True
            if time.monotonic() > deadline:
                raise RedisFailed(f"redis-server is silent:\n{self._log.read_text()}")
            time.sleep(0.01)
        return False

    def _answers(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            # Or that it wants a password.
            return connection.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        return False


@contextmanager
def running(*options: str) -> Iterator[RedisServer]:
    """Run a server with further options; without Redis fail in CI, else skip."""
    find_program()
    # Not in the folder of a test: paths of sockets are limited to 107 characters.
    with TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), *options)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def sentinel(server: RedisServer, service: str) -> Iterator[RedisServer]:
    """Run a sentinel that knows the server by this name."""
    with TemporaryDirectory(prefix="sentinel-") as folder:
        file = Path(folder, "sentinel.conf")  # which it rewrites
        file.write_text(f"sentinel monitor {service} 127.0.0.1 {server.port} 1\n")
        watching = RedisServer(Path(folder), "--sentinel", file=file)
        try:
            watching.start()
            yield watching
        finally:
            watching.stop()


def find_program() -> str:
    """Return the server's path. REDIS_SERVER names another one."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin"
    names = [os.environ.get("REDIS_SERVER", ""), *PROGRAMS]
    found = next(filter(None, (shutil.which(name, path=path) for name in names if name)), None)
    if found is None:
        skip_outside_ci("no Redis; on Debian and Ubuntu: apt-get install redis-server")
    return found
