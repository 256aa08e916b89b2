"""What becomes of a change when its process ends or forks. Each case is a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.recording import DEADLINE_S, Answer, Recorded, RecordingServer, acknowledge

ROOT = Path(__file__).resolve().parents[1]

PROLOGUE = """
import atexit, os, sys, threading, time
from grip_edge_middleware import GripEdge
url = os.environ["RECORDING"]
edge = GripEdge(settings={
    "grip_url": url, "cdn": url.replace("http", "varnish"), "throttle": 3600.0,
    "topics": {
        "counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream", "recovery": None},
    },
})
def save(name, value="1"):
    edge.publish("counter-{name}", value, name=name)
"""


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


def run(server: RecordingServer, script: str) -> int:
    code = PROLOGUE + textwrap.dedent(script)
    environ = {**os.environ, "RECORDING": server.url}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        env=environ,
        timeout=60,
        check=False,
        capture_output=True,
    )
    assert b"Fatal" not in done.stderr, done.stderr.decode()
    return done.returncode


def sent(server: RecordingServer) -> dict[str, int]:
    return dict(Counter(server.channels))


# --- the end of a script ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "code"),
    [("", 0), ("sys.exit(3)", 3), ("raise RuntimeError('unhandled')", 1)],
    ids=["plain", "sys.exit", "unhandled exception"],
)
def test_a_script_delivers_what_it_saved_last(
    server: RecordingServer, ending: str, code: int
) -> None:
    assert run(server, f"save('a', '1'); save('a', '2'); save('b')\n{ending}") == code

    assert set(server.channels) == {"counter-a", "counter-b"}
    a = [i["formats"]["http-stream"]["content"] for i in server.items if i["channel"][-1] == "a"]
    assert a[-1] == "2"


def test_a_save_at_exit_is_delivered(server: RecordingServer) -> None:
    """Handlers that are registered after the edge run before its own."""
    assert run(server, "atexit.register(save, 'a')") == 0

    assert sent(server) == {"counter-a": 1}


def test_a_save_in_a_thread_that_outlives_the_script_is_delivered(server: RecordingServer) -> None:
    code = run(
        server,
        """
        main = threading.main_thread()
        threading.Thread(target=lambda: (main.join(), save('a'))).start()
        """,
    )

    assert code == 0
    assert sent(server) == {"counter-a": 1}


def test_a_target_that_is_down_does_not_keep_a_script_from_ending(server: RecordingServer) -> None:
    server.respond = lambda _: Answer(503)

    assert run(server, "edge._parts.dispatcher._flush_timeout_s = 0.2\nsave('a')") == 0
    assert server.publishes == []


# --- forks ------------------------------------------------------------------------------------


def test_a_fork_sends_nothing_twice(server: RecordingServer) -> None:
    code = run(
        server,
        """
        save('parent', '1'); edge.flush(10)
        save('parent', '2')              # pending: its window is open
        child = os.fork()
        if not child:
            save('child')
            edge.flush(10)
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
        """,
    )

    assert code == 0
    assert sent(server) == {"counter-parent": 2, "counter-child": 1}


def test_a_child_that_only_exits_sends_nothing(server: RecordingServer) -> None:
    code = run(
        server,
        """
        save('parent', '1'); edge.flush(10)
        save('parent', '2')
        child = os.fork()
        if not child:
            sys.exit()
        assert os.waitpid(child, 0)[1] == 0
        """,
    )

    assert code == 0
    assert sent(server) == {"counter-parent": 2}


def test_many_children_of_a_busy_parent_all_deliver(server: RecordingServer) -> None:
    """Locks that a thread of the parent holds at the fork must not be met in the child."""
    code = run(
        server,
        """
        import signal
        sys.setswitchinterval(1e-6)
        over = threading.Event()
        def busy():
            while not over.is_set():
                save('busy'); edge.health()
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads: thread.start()
        failed = 0
        for number in range(60):
            child = os.fork()
            if not child:
                signal.alarm(8)
                save(f'child-{number}')
                os._exit(not edge.flush(5))
            failed += os.waitpid(child, 0)[1] != 0
            if failed > 2: break
        over.set()
        for thread in threads: thread.join()
        sys.exit(failed)
        """,
    )

    assert code == 0
    children = {name: n for name, n in sent(server).items() if "child" in name}
    assert children == {f"counter-child-{number}": 1 for number in range(60)}


def test_a_child_delivers_while_its_parent_waits_for_a_target(server: RecordingServer) -> None:
    def hang_for_parent(request: Recorded) -> Answer:
        is_parents = request.is_publish and "counter-parent" in request.channels
        return Answer(hangs=is_parents)

    server.respond = lambda request: (
        acknowledge(request) if request.is_purge else hang_for_parent(request)
    )
    code = run(
        server,
        """
        save('parent')
        while not threading.active_count() > 2: time.sleep(0.01)  # its request is under way
        child = os.fork()
        if not child:
            save('child')
            os._exit(not edge.flush(10))
        failed = os.waitpid(child, 0)[1]
        os._exit(failed != 0)
        """,
    )

    assert code == 0
    assert sent(server)["counter-child"] == 1


def test_a_child_of_multiprocessing_delivers(server: RecordingServer) -> None:
    """It ends by `os._exit`, so `atexit` does not run in it."""
    code = run(
        server,
        """
        import multiprocessing
        def work():
            save('child', '1'); save('child', '2')
        worker = multiprocessing.get_context('fork').Process(target=work)
        worker.start(); worker.join()
        sys.exit(worker.exitcode)
        """,
    )

    assert code == 0
    contents = [item["formats"]["http-stream"]["content"] for item in server.items]
    assert contents[-1:] == ["2"]


def test_a_child_of_multiprocessing_delivers_by_an_edge_of_its_own(
    server: RecordingServer,
) -> None:
    """As a worker of granian does, which imports the app after the fork."""
    code = run(
        server,
        """
        import multiprocessing
        def work():
            own = GripEdge(settings={
                "grip_url": url, "throttle": 3600.0,
                "topics": {"own": {"routes": ["/own"], "hold": "stream"}},
            })
            own.publish("own", "1"); own.publish("own", "2")
        worker = multiprocessing.get_context('fork').Process(target=work)
        worker.start(); worker.join()
        sys.exit(worker.exitcode)
        """,
    )

    assert code == 0
    contents = [item["formats"]["http-stream"].get("content") for item in server.items]
    assert "2" in contents


# --- servers ----------------------------------------------------------------------------------

WSGI_APP = (
    PROLOGUE
    + """
def view(environ, start_response):
    if environ["PATH_INFO"] == "/save":
        save(environ["QUERY_STRING"], "1"); save(environ["QUERY_STRING"], "2")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
app = edge.wsgi(view)
if os.environ.get("SAVE_AT_IMPORT"):
    save("import"); edge.flush(10)
"""
)

ASGI_APP = (
    PROLOGUE
    + """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
async def view(request):
    if request.url.path == "/save":
        save(request.url.query, "1"); save(request.url.query, "2")
    return PlainTextResponse("ok")
app = edge.asgi(Starlette(routes=[Route("/", view), Route("/save", view)]))
"""
)


@contextmanager
def served(
    server: RecordingServer, tmp_path: Path, app: str, *command: str, **environ: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    (tmp_path / "served.py").write_text(app)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *[part.replace("PORT", str(port)) for part in command]],
            env={**os.environ, **environ, "RECORDING": server.url, "PYTHONPATH": paths},
            cwd=tmp_path,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_served(url, process, tmp_path)
        yield process, url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_served(url: str, process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            get(url)
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError((tmp_path / "log").read_text())


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


GUNICORN = ("gunicorn", "--bind", "127.0.0.1:PORT", "--graceful-timeout", "10")
UVICORN = ("uvicorn", "--port", "PORT", "--lifespan", "on")


def save_and_stop(
    process: subprocess.Popen[bytes], url: str, number: signal.Signals, server: RecordingServer
) -> None:
    """Save twice within a window, and stop the server while the second is pending."""
    get(f"{url}/save?blue")
    server.wait_for_channels("counter-blue")
    process.send_signal(number)
    process.wait(DEADLINE_S)


def contents(server: RecordingServer, channel: str) -> list[str]:
    return [
        item["formats"]["http-stream"]["content"]
        for item in server.items
        if item["channel"] == channel
    ]


def assert_delivered_once(server: RecordingServer, channel: str) -> None:
    values = contents(server, channel)
    assert values[-1] == "2"
    assert len(values) == len(set(values)), values


@pytest.mark.parametrize(
    ("number", "options"),
    [
        pytest.param(signal.SIGTERM, (), id="TERM-sync"),
        pytest.param(
            signal.SIGTERM, ("--worker-class", "gthread", "--threads", "4"), id="TERM-gthread"
        ),
        pytest.param(signal.SIGTERM, ("--preload",), id="TERM-preload"),
        pytest.param(signal.SIGTERM, ("--preload", "--workers", "2"), id="TERM-preload-2-workers"),
        pytest.param(signal.SIGINT, (), id="INT-sync"),
    ],
)
def test_gunicorn_delivers_once_when_it_is_stopped(
    server: RecordingServer, tmp_path: Path, options: tuple[str, ...], number: signal.Signals
) -> None:
    with served(server, tmp_path, WSGI_APP, *GUNICORN, *options, "served:app") as (process, url):
        save_and_stop(process, url, number, server)

    assert_delivered_once(server, "counter-blue")


def test_a_worker_delivers_although_the_preloading_master_did_before(
    server: RecordingServer, tmp_path: Path
) -> None:
    """A thread and a connection of the master's are of no use in its workers."""
    command = (*GUNICORN, "--preload", "served:app")
    with served(server, tmp_path, WSGI_APP, *command, SAVE_AT_IMPORT="1") as (process, url):
        save_and_stop(process, url, signal.SIGTERM, server)

    assert contents(server, "counter-import") == ["1"]
    assert_delivered_once(server, "counter-blue")


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "2 workers"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_uvicorn_delivers_once_when_it_is_stopped(
    server: RecordingServer, tmp_path: Path, options: tuple[str, ...], number: signal.Signals
) -> None:
    with served(server, tmp_path, ASGI_APP, *UVICORN, *options, "served:app") as (process, url):
        save_and_stop(process, url, number, server)

    assert_delivered_once(server, "counter-blue")


def test_a_server_stops_although_the_targets_hang(server: RecordingServer, tmp_path: Path) -> None:
    server.respond = lambda request: (
        acknowledge(request) if request.is_purge else Answer(hangs=True)
    )
    with served(server, tmp_path, WSGI_APP, *GUNICORN, "served:app") as (process, url):
        get(f"{url}/save?blue")
        server.wait_for(lambda seen: len(seen) == 2)
        process.terminate()

        assert process.wait(30) is not None
