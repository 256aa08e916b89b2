"""One example behind an edge, started and stopped as one thing.

    python examples/demo.py [flask|starlette|django|chat] [--edge embedded|real]

The embedded edge is the package's own, for development. The real one is Pushpin and Varnish.

It listens on loopback only, keeps its database in a temporary folder, and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "edge"), str(HERE.parent)]

from launch import (  # noqa: E402
    Edge,
    EdgeFailed,
    EdgeMissing,
    check_binaries,
    closing_client,
    end_with_parent,
    free_ports,
)

from grip_edge_middleware.devedge import TIMELINE_PATH, VERIFY_KEY, DevEdge  # noqa: E402
from grip_edge_middleware.watchers import FOLDER_VARIABLE  # noqa: E402

CLIENT_PORT = 7999
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Example:
    """How to serve one of the apps, and what to try with it."""

    server: str
    database: str
    page: str
    act: str
    stream: str
    post: str
    prepare: str = ""
    """What is run once, before the server."""
    sockets: Sequence[str] = ()
    """How the paths begin where it has WebSockets."""


EXAMPLES = {
    "flask": Example(
        server="gunicorn --workers 1 --threads 8 --log-level warning"
        " --bind 127.0.0.1:{port} examples.flask_app.app:app",
        database="sqlite:///{folder}/counters.sqlite3",
        page="/counters/coffees/",
        act="press the button in one",
        stream="/counters/coffees/events",
        post="-X POST {url}/counters/coffees/increment",
    ),
    "starlette": Example(
        server="uvicorn --log-level warning --port {port} examples.starlette_app.app:app",
        database="sqlite+aiosqlite:///{folder}/auctions.sqlite3",
        page="/auctions/1",
        act="bid in one",
        stream="/auctions/1/events",
        post="-d bidder=ann -d amount=5000 {url}/auctions/1/bids",
    ),
    "django": Example(
        server="gunicorn --workers 1 --threads 8 --log-level warning"
        " --bind 127.0.0.1:{port} examples.django_app.wsgi:application",
        database="sqlite:///{folder}/counters.sqlite3",
        page="/pages/1/",
        act="press the button in one",
        stream="/counters/1/ -H 'Accept: text/event-stream'",
        post="-X POST {url}/counters/1/",
        prepare="examples.django_app.manage migrate --verbosity 0",
    ),
    "chat": Example(
        server="gunicorn --workers 1 --threads 8 --log-level warning"
        " --bind 127.0.0.1:{port} examples.chat_app.app:app",
        database="sqlite:///{folder}/chat.sqlite3",
        page="/rooms/lobby/",
        act="say something in one",
        stream="/rooms/lobby/socket",
        post="-d author=ann -d text=hello {url}/rooms/lobby/",
        sockets=("/rooms/",),
    ),
}
TEXT = """
  Open   {url}{page}

  Try    it in two windows, and {act}: both move, neither reloads
         a reload: the page comes from the cache, not from the app
         curl -N {url}{stream}
         curl {post}
{see}
  Wired  browser - {edge} - {app} :{app_port}

  Ready  after {ready_s:.1f} s

  Ctrl-C stops everything.
"""


SEE = """
  See    {url}
         how each request is pulled, and each change pushed, as it happens
"""


class AppFailed(Exception):  # noqa: N818 - as EdgeFailed
    """The app ended; the text ends with what it wrote."""


class Embedded:
    """The development edge, on a thread of this process, in front of `app_port`."""

    def __init__(self, *, client_port: int | None = None, over_http: Sequence[str] = ()) -> None:
        self.app_port = next(free_ports())
        self.verify_key = VERIFY_KEY
        self._folder = tempfile.TemporaryDirectory(prefix="grip-edge-")
        dev_edge = DevEdge(
            f"http://127.0.0.1:{self.app_port}", watch_folder=Path(self._folder.name)
        )
        self._running = dev_edge.running(client_port=client_port or 0)

    def __enter__(self) -> Self:
        self._running.__enter__()
        self.client_port = self._running.ports["clients"]
        self.url = self._running.url("clients")
        self.control_url = self._running.url("control")
        self.cdn_url = f"varnish://127.0.0.1:{self._running.ports['cache']}"
        self.wiring = f"embedded edge :{self.client_port}"
        # The app tells it what it saves.
        self.environ = {FOLDER_VARIABLE: self._folder.name}
        self.see = SEE.format(url=f"{self.control_url}{TIMELINE_PATH}")
        return self

    def __exit__(self, *_: object) -> None:
        self._running.__exit__()
        self._folder.cleanup()


class Real(Edge):
    """Pushpin and Varnish."""

    see = ""
    environ: Mapping[str, str] = MappingProxyType({})

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    @property
    def wiring(self) -> str:
        return f"Pushpin :{self.client_port} - Varnish :{self.cache_port}"


EDGES: dict[str, type[Embedded | Real]] = {"embedded": Embedded, "real": Real}


class App:
    """An example under its usual server, as a process that ends with this one."""

    def __init__(self, example: Example, edge: Embedded | Real, folder: Path) -> None:
        server = example.server.format(port=edge.app_port)
        self._log = folder / "app.log"
        environment = {
            **os.environ,
            "GRIP_URL": edge.control_url,
            "EDGE_CDN": edge.cdn_url,
            "GRIP_VERIFY_KEY": edge.verify_key,
            "GRIP_EDGE_SECRET": secrets.token_urlsafe(32),
            "DATABASE_URL": example.database.format(folder=folder),
            "TMPDIR": str(folder),
            **edge.environ,
        }
        if example.prepare:
            self._prepare(example.prepare, environment)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *server.split()],
                cwd=HERE.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches only the demo, which stops things in order.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    def _prepare(self, command: str, environment: dict[str, str]) -> None:
        arguments = [sys.executable, "-m", *command.split()]
        ended = subprocess.run(
            arguments, cwd=HERE.parent, env=environment, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            raise AppFailed(f"{command} ended with {ended.returncode}:\n{ended.stderr[-4000:]}")

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace").strip()[-4000:]

    def check(self) -> None:
        """Raise if it has ended."""
        if self._process.poll() is not None:
            raise AppFailed(f"the app ended with {self._process.returncode}:\n{self.said}")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # Its workers too: they are of its session, which is its process group.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def run(name: str, kind: str) -> None:
    """Start the edge and the app, say what to do with them, and wait until one of them ends."""
    began = time.monotonic()
    example = EXAMPLES[name]
    if kind == "real":
        check_binaries()
    with (
        tempfile.TemporaryDirectory(prefix="grip-edge-demo-") as folder,
        EDGES[kind](
            client_port=CLIENT_PORT if can_listen(CLIENT_PORT) else None,
            over_http=example.sockets,
        ) as edge,
        running(App(example, edge, Path(folder))) as app,
        uninterrupted_end(),
    ):
        # The app first, so that what the edge shows does not begin with failures.
        for port in (edge.app_port, edge.client_port):
            wait_until_answered(port, example.page, app)
        print(describe(name, edge, time.monotonic() - began), flush=True)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        app.check()
        raise EdgeFailed("a program of the edge ended")


@contextmanager
def running(app: App) -> Iterator[App]:
    try:
        yield app
    finally:
        app.stop()


@contextmanager
def uninterrupted_end() -> Iterator[None]:
    """Ignore further signals once one has come, or anything else ends the block."""
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def can_listen(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: what is left of a demo that just ended is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until_answered(port: int, path: str, app: App) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not answers(port, path):
        app.check()
        if time.monotonic() > deadline:
            raise AppFailed(f"no answer from the app in {START_TIMEOUT_S:g} s:\n{app.said}")
        time.sleep(0.05)


def answers(port: int, path: str) -> bool:
    try:
        with closing_client(port) as client:
            client.request("GET", path)
            return client.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def describe(name: str, edge: Embedded | Real, ready_s: float) -> str:
    example = EXAMPLES[name]
    return TEXT.format(
        url=edge.url,
        page=example.page,
        act=example.act,
        stream=example.stream,
        post=example.post.format(url=edge.url),
        see=edge.see,
        edge=edge.wiring,
        ready_s=ready_s,
        app=f"{name.capitalize()} app",
        app_port=edge.app_port,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Run an example behind an edge.")
    parser.add_argument("example", nargs="?", default="flask", choices=EXAMPLES)
    parser.add_argument("--edge", default="embedded", choices=EDGES)
    options = parser.parse_args()
    # SIGINT too: a shell starts background jobs with it ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        run(options.example, options.edge)
    except (AppFailed, EdgeFailed, EdgeMissing) as error:
        sys.exit(f"demo: {error}")
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()
