"""`grip-edge dev`, as a process with an app that is edited."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

import pytest

from grip_edge_middleware.cli import main
from grip_edge_middleware.cli.served import load
from grip_edge_middleware.cli.status import OK, WRONG_USE, WrongUse
from grip_edge_middleware.settings import DEV_VARIABLE, Settings
from tests.recording import DEADLINE_S

# Names a CDN and a proxy that must not hear of it.
FLASK = """
from flask import Flask
from grip_edge_middleware import GripEdge

def make():
    app = Flask(__name__)
    app.config["GRIP_EDGE"] = {
        "cdn": {"fastly": {"service_id": "abc", "token": "token"}},
        "grip_url": "http://elsewhere.invalid",
        "topics": {"news": {"routes": ["/news", {"path": "/news/events", "hold": "stream"}]}},
    }
    app.add_url_rule("/news", view_func=page)
    app.add_url_rule("/news/events", view_func=stream)
    app.add_url_rule("/change", view_func=change, methods=["POST"])
    edge.init_app(app)
    return app

def page():
    return "one"

def stream():
    return "data: one\\n\\n", {"Content-Type": "text/event-stream"}

def change():
    edge.submit("news")
    return "ok"

edge = GripEdge()
app = make()
"""
STARLETTE = """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from grip_edge_middleware import GripEdge, GripEdgeMiddleware

edge = GripEdge(settings={
    "regions": {"eu": {"cdn": "varnish://elsewhere.invalid", "grip_url": "http://x.invalid"}},
    "dispatch": "external",
    "store": "sqlite:///STORE",
    "topics": {"news": {"routes": ["/news", {"path": "/news/events", "hold": "stream"}]}},
})

async def page(request):
    return Response("one")

async def stream(request):
    return Response("data: one\\n\\n", media_type="text/event-stream")

async def change(request):
    edge.submit("news")
    return Response("ok")

app = Starlette(
    routes=[
        Route("/news", page),
        Route("/news/events", stream),
        Route("/change", change, methods=["POST"]),
    ],
    middleware=[Middleware(GripEdgeMiddleware, edge=edge)],
)
"""
BROKEN_LIFESPAN = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""
APPS = {"flask": FLASK, "starlette": STARLETTE}


class Dev:
    """The command, and what it has said: each line of its JSON."""

    def __init__(self, folder: Path, *options: str, app: str = "shop:app") -> None:
        command = [sys.executable, "-m", "grip_edge_middleware", "dev", app, "--json"]
        command += ["--app-dir", str(folder), *options]
        for name in ("client", "control", "cache"):
            command += [f"--{name}-port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.errors: list[str] = []
        self._events: Queue[dict[str, Any]] = Queue()
        self._threads = [threading.Thread(target=each) for each in (self._read, self._read_errors)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        self.ports = self.wait_for("start")["ports"]
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.end()

    def end(self) -> int:
        """Wait for the end, and return the status."""
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            for thread in self._threads:
                thread.join()
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the next event of this name."""
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                found = self._events.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                raise AssertionError(f"no {event!r}:\n{''.join(self.errors)}") from None
            if found["event"] == event:
                return found

    def request(self, method: str, path: str) -> tuple[int, str]:
        with contextlib.closing(self._client()) as client:
            client.request(method, path)
            answer = client.getresponse()
            return answer.status, answer.read().decode()

    @contextmanager
    def stream(self, path: str) -> Iterator[Callable[[str], None]]:
        """Open a stream; what is given reads it up to an event."""
        with contextlib.closing(self._client()) as client:
            client.request("GET", path)
            lines = client.getresponse()

            def read_to(wanted: str) -> None:
                while (line := lines.readline().decode()) != f"data: {wanted}\n":
                    assert line, "the stream has ended"

            yield read_to

    @property
    def app_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def _client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.ports["clients"], timeout=DEADLINE_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put(json.loads(line))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)


def write(folder: Path, text: str) -> None:
    """Write as editors do: what is read is the old file or the new one."""
    (folder / "new").write_text(text.replace("STORE", str(folder / "store.sqlite3")))
    (folder / "new").rename(folder / "shop.py")


@contextmanager
def running(pid: int) -> Iterator[Callable[[float], bool]]:
    """Give what waits for the end of a process, and ends one that goes on."""
    descriptor = os.pidfd_open(pid)
    try:
        yield lambda timeout_s: bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


@pytest.mark.parametrize("name", APPS)
def test_new_code_answers_and_streams_stay_held(name: str, tmp_path: Path) -> None:
    write(tmp_path, APPS[name])
    with Dev(tmp_path) as dev:
        dev.wait_for("ready")
        assert dev.request("GET", "/news") == (200, "one")
        with dev.stream("/news/events") as read_to:
            read_to("one")
            write(tmp_path, APPS[name].replace("one", "two"))
            dev.wait_for("change")
            dev.wait_for("ready")
            assert dev.request("GET", "/news") == (200, "two")
            assert dev.request("POST", "/change") == (200, "ok")
            read_to("two")
        with running(dev.app_pid) as has_ended:
            dev.process.send_signal(signal.SIGINT)

            assert dev.end() == OK
            assert has_ended(0)
        assert not [line for line in dev.errors if "Traceback" in line]


def test_a_mistake_is_shown_and_the_next_change_mends_it(tmp_path: Path) -> None:
    write(tmp_path, FLASK)
    with Dev(tmp_path, "--factory", "--interface", "wsgi", app="shop:make") as dev:
        dev.wait_for("ready")
        write(tmp_path, "def make(:\n")
        dev.wait_for("failed")
        status, said = dev.request("GET", "/")
        write(tmp_path, FLASK.replace("one", "two"))
        dev.wait_for("ready")

        assert status == 500
        assert said.startswith('  File "')
        assert "SyntaxError" in said
        assert dev.request("GET", "/news") == (200, "two")
    assert [line for line in dev.errors if "SyntaxError" in line]


def test_an_app_that_ends_by_itself_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "import os\nos._exit(3)\n")
    with Dev(tmp_path) as dev:
        dev.wait_for("ended")
        write(tmp_path, FLASK)
        dev.wait_for("ready")

        assert dev.request("GET", "/news") == (200, "one")


def test_a_lifespan_that_fails_is_a_mistake_as_well(tmp_path: Path) -> None:
    write(tmp_path, BROKEN_LIFESPAN)
    with Dev(tmp_path, "--no-reload") as dev:
        dev.wait_for("failed")

        assert dev.request("GET", "/") == (500, "the app failed when it started\n")
    assert [line for line in dev.errors if "no database" in line]


def test_a_killed_command_leaves_no_app(tmp_path: Path) -> None:
    write(tmp_path, FLASK)
    with Dev(tmp_path) as dev:
        dev.wait_for("ready")
        with running(dev.app_pid) as has_ended:
            dev.process.kill()

            assert has_ended(DEADLINE_S)


def test_it_says_where_everything_is_and_what_is_no_app_ends_it(tmp_path: Path) -> None:
    write(tmp_path, "")
    command = [sys.executable, "-m", "grip_edge_middleware", "dev", "shop:app"]
    ports = [f"--{name}-port=0" for name in ("client", "control", "cache")]
    done = subprocess.run(
        [*command, "--app-dir", str(tmp_path), *ports], capture_output=True, text=True, check=False
    )

    assert done.returncode == WRONG_USE
    assert re.search(r"(?m)^Open +http://127\.0\.0\.1:\d+/$", done.stdout)
    assert re.search(r"(?m)^Timeline +http://.*/\.grip-edge/timeline$", done.stdout)
    assert 'there is no "app" in shop' in done.stderr


def test_a_number_or_an_edge_is_no_app(tmp_path: Path) -> None:
    module = f"shop_of_{tmp_path.name}"
    text = "from grip_edge_middleware import GripEdge\nedge, number = GripEdge(), 7\n"
    (tmp_path / f"{module}.py").write_text(text)

    for name, kind in (("edge", "GripEdge"), ("number", "int")):
        with pytest.raises(WrongUse, match=f"expected an app.* got an instance of {kind}"):
            load(f"{module}:{name}", str(tmp_path), "auto", is_factory=False)


def test_a_library_that_is_missing_is_a_mistake_of_the_app(tmp_path: Path) -> None:
    module = f"library_of_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text("import no_such_library\n")

    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load(f"{module}:app", str(tmp_path), "auto", is_factory=False)
    with pytest.raises(WrongUse, match="is --app-dir where it is"):
        load("no_such_app:app", str(tmp_path), "auto", is_factory=False)


def test_a_taken_port_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status = main(["dev", "shop:app", "--app-dir", str(tmp_path), "--control-port", port])

    assert status == WRONG_USE
    err = capsys.readouterr().err
    assert f"port {port} cannot be listened on (Address already in use)" in err
    assert "choose another with --control-port" in err


def test_no_port_is_for_two(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    ports = ["--client-port", port, "--cache-port", port]

    assert main(["dev", "shop:app", *ports]) == WRONG_USE
    assert "the ports must differ" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "70000", "http"])
def test_a_port_is_a_number_that_can_be_one(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dev", "shop:app", "--client-port", port])

    assert ended.value.code == WRONG_USE
    assert "expected a port, 0 to 65535" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dev", "shop:app", "--app-dir", "/no/such"]) == WRONG_USE
    assert "/no/such: there is no such folder" in capsys.readouterr().err


def test_settings_tell_nobody_else_while_developed() -> None:
    settings = Settings.parse(
        {
            "cdn": {"fastly": {}},  # without the token that it would need
            "grip_url": "http://elsewhere.invalid?key=secret",
            "regions": {"eu": {"cdn": "varnish://elsewhere.invalid"}},
            "dispatch": "external",
            "topics": {"news": {"routes": [{"path": "/news", "hold": "stream"}]}},
        },
        {DEV_VARIABLE: "http://127.0.0.1:1?verify-key=0123456789abcdef varnish://127.0.0.1:2"},
    )

    assert [proxy.control_uri for proxy in settings.proxies] == ["http://127.0.0.1:1"]
    assert [proxy.key for proxy in settings.proxies] == [None]
    assert str(settings.cdns) == "(Varnish(url='http://127.0.0.1:2', soft=True),)"
    assert (settings.regions, settings.is_external) == ((), False)
