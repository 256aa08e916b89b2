"""`grip-edge dev`: an app behind the embedded edge, started again when its code changes.

The edge and the port that the app listens on stay, so open streams stay held, and requests wait for
the new code instead of failing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

from grip_edge_middleware.cli.screen import Screen, screen_options
from grip_edge_middleware.cli.status import OK, WRONG_USE, WrongUse
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request
from grip_edge_middleware.settings import DEV_VARIABLE
from grip_edge_middleware.transport import HttpTransport

if TYPE_CHECKING:
    from grip_edge_middleware.devedge.server import Running

TICK_MS = 100
# The server itself gives its requests two seconds, and the app's edge may have something to send.
STOP_TIMEOUT_S = 10.0
REFRESH_TIMEOUT_S = 5.0


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say how it is called."""
    parser = commands.add_parser(
        "dev",
        parents=[screen_options()],
        help="run an app behind an edge for development",
        description="Run a WSGI or ASGI app behind the embedded edge, on this machine only, until "
        "Ctrl-C. Whatever its settings say, it purges and publishes here and nowhere else. When a "
        ".py file changes the app starts again; open streams stay.",
    )
    parser.add_argument("app", metavar="MODULE:APP", help='the app, as in "shop:app"')
    parser.add_argument("--app-dir", default=".", help="where the module is (default: here)")
    parser.add_argument(
        "--interface",
        choices=("auto", "wsgi", "asgi"),
        default="auto",
        help="what the app is (default: what it looks like)",
    )
    parser.add_argument("--factory", action="store_true", help="APP is called to make the app")
    for name, default, what in PORTS:
        parser.add_argument(
            f"--{name}-port",
            type=port,
            default=default,
            metavar="PORT",
            help=f"{what} (default: {default}; 0 is a free one)",
        )
    parser.add_argument(
        "--watch",
        action="append",
        metavar="DIR",
        help="where changes are looked for; may be repeated (default: --app-dir)",
    )
    parser.add_argument("--no-reload", action="store_true", help="never start it again")
    parser.set_defaults(run=run)


# As in examples/edge, so that an app is set up for both alike.
PORTS = (
    ("client", 7999, "where browsers connect"),
    ("control", 5561, "where the app publishes"),
    ("cache", 6081, "where the app purges"),
)


def port(text: str) -> int:
    """Read a port, for argparse."""
    if text.isdecimal() and int(text) <= 65_535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected a port, 0 to 65535")


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    screen = Screen.of(options)
    folders = [] if options.no_reload else options.watch or [options.app_dir]
    check_folders([options.app_dir, *folders])
    check_ports({name: getattr(options, f"{name}_port") for name, _, _ in PORTS})
    is_over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: is_over.set())
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        edge_before(listener, options) as edge,
        App(command(options), listener, environment(edge), is_json=screen.is_json) as app,
    ):
        is_told = False
        for changed in ticks(folders, is_over):
            if not is_told:  # from here on no change is missed
                is_told = True
                tell_where(screen, edge, options)
                app.start()
            if changed:
                screen.line(f"{', '.join(changed)} changed: starting the app again")
                screen.json({"event": "change", "files": changed})
                app.restart()
            for news in app.news():
                if news == "wrong" and not app.has_been_ready:
                    return WRONG_USE
                note(screen, edge, app, news, will_look=bool(folders))
        screen.line("stopping")
    return OK


def check_folders(folders: Sequence[str]) -> None:
    """Raise WrongUse if there is no such folder."""
    for folder in folders:
        if not Path(folder).is_dir():
            raise WrongUse(f"{folder}: there is no such folder")


def check_ports(ports: Mapping[str, int]) -> None:
    """Raise WrongUse if a port is taken."""
    given = [number for number in ports.values() if number]
    if len(set(given)) < len(given):
        raise WrongUse("the ports must differ: --client-port, --control-port and --cache-port")
    for name, number in ports.items():
        try:
            socket.create_server(("127.0.0.1", number)).close()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise WrongUse(
                f"port {number} cannot be listened on ({reason}): stop what has it, or "
                f"choose another with --{name}-port; 0 takes a free one"
            ) from None


@contextlib.contextmanager
def edge_before(listener: socket.socket, options: argparse.Namespace) -> Iterator[Running]:
    """Run the embedded edge in front of what is served from a socket."""
    try:
        from grip_edge_middleware.devedge import DevEdge
    except ImportError as error:
        hint = "pip install 'grip-edge-middleware[cli,dev]'"
        raise WrongUse(f"dev needs the dev extra: {error}; {hint}") from None
    edge = DevEdge(f"http://127.0.0.1:{listener.getsockname()[1]}")
    ports = {f"{name}_port": getattr(options, f"{name}_port") for name, _, _ in PORTS}
    with edge.running(**ports) as running:
        yield running


def environment(edge: Running) -> dict[str, str]:
    """Return the app's environment, in which its settings mean this edge."""
    from grip_edge_middleware.devedge import VERIFY_KEY

    grip_url = f"{edge.url('control')}?{urlencode({'verify-key': VERIFY_KEY})}"
    cdn = f"varnish://127.0.0.1:{edge.ports['cache']}"
    return {
        **os.environ,
        "GRIP_URL": grip_url,
        DEV_VARIABLE: f"{grip_url} {cdn}",
        "PYTHONUNBUFFERED": "1",
    }


def command(options: argparse.Namespace) -> list[str]:
    """Return how the app's process is called."""
    called = [sys.executable, "-m", "grip_edge_middleware.cli.served", options.app]
    called += ["--app-dir", options.app_dir, "--interface", options.interface]
    return [*called, "--factory"] if options.factory else called


def ticks(folders: Sequence[str], is_over: threading.Event) -> Iterator[list[str]]:
    """Yield which files have changed, several times a second, until it is over."""
    if not folders:
        while not is_over.wait(TICK_MS / 1000):
            yield []
        return
    try:
        from watchfiles import PythonFilter, watch
    except ImportError as error:
        hint = "pip install 'grip-edge-middleware[cli,dev]', or say --no-reload"
        raise WrongUse(f"dev needs the dev extra: {error}; {hint}") from None
    for changes in watch(
        *folders,
        watch_filter=PythonFilter(),
        rust_timeout=TICK_MS,
        yield_on_timeout=True,
        stop_event=is_over,
        raise_interrupt=False,
    ):
        yield sorted({os.path.relpath(path) for _, path in changes})


def tell_where(screen: Screen, edge: Running, options: argparse.Namespace) -> None:
    """Say where everything is."""
    from grip_edge_middleware.devedge import TIMELINE_PATH

    url, timeline = f"{edge.url('clients')}/", f"{edge.url('control')}{TIMELINE_PATH}"
    screen.line(("Open      ", "bold"), (url, "cyan underline"))
    screen.line(("Timeline  ", "bold"), (timeline, "cyan underline"))
    screen.line(("App       ", "bold"), options.app)
    screen.line(("Ctrl-C    ", "bold"), "stops everything")
    screen.json({"event": "start", "url": url, "timeline": timeline, "ports": edge.ports})


def note(screen: Screen, edge: Running, app: App, news: str, *, will_look: bool) -> None:
    """Say how the app fares. Nobody is shown what older code has rendered."""
    if news == "ready":
        refresh(edge.url("control"))
    screen.json({"event": news, "took_s": round(app.age_s, 3)})
    waits = "; it is tried again when a .py file changes" if will_look else ""
    if news == "ready":
        screen.line(("the app is ready", "green"), f" after {app.age_s:.1f} s")
    elif news == "ended":
        screen.line(("the app has ended", "bold red"), f" with {app.status}", waits)
    else:
        screen.line(("the app does not start", "bold red"), waits)


def refresh(control_url: str) -> None:
    """Empty the cache, and have clients ask for what they miss."""
    transport = HttpTransport(timeout_s=REFRESH_TIMEOUT_S)
    try:
        for path in ("/service/dev/purge_all", "/recover/"):
            with contextlib.suppress(DeliveryError):
                transport.send(Request("POST", f"{control_url}{path}"))
    finally:
        transport.close()


class App:
    """The app's process, one after the other, and none when a block ends."""

    def __init__(
        self,
        command: Sequence[str],
        listener: socket.socket,
        environ: Mapping[str, str],
        *,
        is_json: bool = False,
    ) -> None:
        self.has_been_ready = False
        self._command = command
        self._listener = listener
        self._environ = environ
        # stdout is for JSON alone.
        self._stdout = sys.stderr if is_json else None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def age_s(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self._began

    @property
    def status(self) -> int | None:
        """With what it ended."""
        return None if self._process is None else self._process.returncode

    def start(self) -> None:
        """Start it, in the process group of this one: a debugger has the terminal."""
        self._began = time.monotonic()
        self._line, theirs = socket.socketpair()
        with theirs:
            fds = (self._listener.fileno(), theirs.fileno())
            called = [*self._command, "--listener", str(fds[0]), "--starter", str(fds[1])]
            self._process = subprocess.Popen(  # noqa: S603 - the user's own app
                called, env=self._environ, pass_fds=fds, stdout=self._stdout
            )
        self._line.setblocking(False)

    def news(self) -> Iterator[str]:
        """Yield what has become of it since this was asked last."""
        if self._process is None or self._line.fileno() < 0:
            return
        try:
            said = self._line.recv(100)
        except BlockingIOError:
            return
        except ConnectionResetError:
            said = b""
        for word in said.decode().split():
            self.has_been_ready = self.has_been_ready or word == "ready"
            yield word
        if not said:
            self._line.close()
            self._process.wait()
            yield "ended"

    def restart(self) -> None:
        """End it, and start it anew."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._line.close()
        self._process = None
