"""The article's live counter on Django, as users run it: row by row, and in a browser."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from clients import StreamClient, request
from launch import Edge, free_ports
from servers import command_server

from tests.recording import RecordingServer

pytestmark = pytest.mark.live

SERVERS = {
    "wsgi": ["gunicorn", "--threads=8", "--log-level=warning", "--bind=127.0.0.1:{port}"],
    "asgi": ["uvicorn", "--log-level=warning", "--port={port}"],
}
STREAM = {"Accept": "text/event-stream"}


def environment(folder: Path, control_url: str, cdn_url: str, **more: str) -> dict[str, str]:
    return {
        "GRIP_URL": control_url,
        "EDGE_CDN": cdn_url,
        "DATABASE_URL": f"sqlite:///{folder}/counters.sqlite3",
        **more,
    }


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as `manage.py migrate` leaves it."""
    folder = tmp_path_factory.mktemp("migrated")
    # To nobody: what a migration writes is told like anything else.
    env = environment(folder, "http://127.0.0.1:9", "varnish://127.0.0.1:9")
    command = [sys.executable, "-m", "examples.django_app.manage", "migrate", "--verbosity=0"]
    subprocess.run(command, env={**os.environ, **env}, check=True)
    return folder / "counters.sqlite3"


@pytest.fixture
def folder(migrated: Path, tmp_path: Path) -> Path:
    """A folder with such a database."""
    shutil.copy(migrated, tmp_path)
    return tmp_path


@contextmanager
def django_example(kind: str, port: int, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    module = [*SERVERS[kind], f"examples.django_app.{kind}:application"]
    command = [part.format(port=port) for part in module]
    with command_server([sys.executable, "-m", *command], port, env=env) as process:
        yield process


# --- the original's behaviour ---------------------------------------------------------------------

COUNTER, NOBODY = "/counters/1/", "/counters/nobody/"
HELD = {"Grip-Hold": "stream", "Grip-Channel": "counter-1"}
TEXT = {"Content-Type": "text/plain"}
EVENT = {"Content-Type": "text/event-stream"}
CACHED = {"Vary": "Accept", "Cache-Control": "s-maxage=600"}
ALLOW = {"Allow": "OPTIONS, GET, POST"}
MOVED = {"Location": "/counters/1/"}
PADDING = b":" + b" " * 2048 + b"\n\n"

# What fanout/livecounter answers: method, path, Accept; status, body, headers. In this order: each
# POST counts. Of headers these are all that say something; a mere 404 page has none. Measured on
# its own views, under Django 5.2.
ORIGINAL: list[tuple[str, str, str | None, int, bytes | None, dict[str, str]]] = [
    ("GET", COUNTER, None, 200, b"0\n", TEXT | CACHED),
    ("GET", COUNTER, "*/*", 200, b"0\n", TEXT | CACHED),
    ("GET", COUNTER, "text/html", 200, b"0\n", TEXT | CACHED),
    (
        "GET", COUNTER, "text/event-stream", 200,
        PADDING + b"event: message\ndata: 0\n\n", EVENT | CACHED | HELD,
    ),
    (
        "GET", COUNTER, "text/html, text/event-stream;q=0.5", 200,
        PADDING + b"event: message\ndata: 0\n\n", EVENT | CACHED | HELD,
    ),
    ("POST", COUNTER, None, 200, b"1\n", TEXT),
    ("POST", COUNTER, "text/event-stream", 200, b"2\n", TEXT),
    ("GET", COUNTER, None, 200, b"2\n", TEXT | CACHED),
    ("OPTIONS", COUNTER, None, 200, b"", {}),
    ("HEAD", COUNTER, None, 405, b"", ALLOW),
    ("PUT", COUNTER, None, 405, b"", ALLOW),
    ("PATCH", COUNTER, None, 405, b"", ALLOW),
    ("DELETE", COUNTER, None, 405, b"", ALLOW),
    ("GET", NOBODY, None, 404, None, {}),
    ("GET", NOBODY, "text/event-stream", 404, None, {}),
    ("POST", NOBODY, None, 404, None, {}),
    ("PUT", NOBODY, None, 404, None, {}),
    ("OPTIONS", NOBODY, None, 404, None, {}),
    ("GET", "/counters/1", None, 301, b"", MOVED),
    ("POST", "/counters/1", None, 301, b"", MOVED),
]  # fmt: skip
SAID = {"Vary", "Cache-Control", "Allow", "Location", "Grip-Hold", "Grip-Channel"}


@pytest.mark.parametrize("kind", SERVERS)
def test_the_demo_answers_as_the_original_does(kind: str, folder: Path) -> None:
    with RecordingServer() as server:
        port = next(free_ports())
        env = environment(folder, server.url, server.url.replace("http", "varnish"))
        with django_example(kind, port, env):
            rows = [(row, answered(port, *row[:3])) for row in ORIGINAL]
            server.wait_for_channels("counter-1")

    differences = [difference(row, answer) for row, answer in rows]
    print_table(kind, rows)
    assert [text for text in differences if text] == []


def answered(port: int, method: str, path: str, accept: str | None) -> Any:
    headers = {} if accept is None else {"Accept": accept}
    return request(f"http://127.0.0.1:{port}{path}", headers, method=method, body=b"")


def difference(row: Any, answer: Any) -> str:
    """Say where an answer is another than the original's, besides what is meant to be."""
    method, path, accept, status, body, headers = row
    shown = {name: answer.headers[name] for name in SAID if name in answer.headers}
    shown["Content-Type"] = answer.headers["Content-Type"]
    # Meant to be: the edge is told at length, in the settings' words, and the stream has a version.
    wanted = dict(headers)
    if "Cache-Control" in wanted:
        wanted["Cache-Control"] = "max-age=0, s-maxage=600"
    if "Grip-Channel" in shown:
        shown["Grip-Channel"] = shown["Grip-Channel"].partition(";")[0]
    wanted.setdefault("Content-Type", "text/html; charset=utf-8")
    # Meant to be: no padding, which old browsers needed, since all that is answered is pushed.
    meant = None if body is None else body.removeprefix(PADDING)
    found = (answer.status, shown, answer.body if meant is not None else None)
    return "" if found == (status, wanted, meant) else f"{method} {path} {accept}: {found}"


def print_table(kind: str, rows: list[Any]) -> None:
    print(f"\n{kind}: method path Accept | original | ours")
    for (method, path, accept, status, body, _), answer in rows:
        size = "page" if body is None else len(body)
        print(f"{method} {path} {accept} | {status}, {size} | {answer.status}, {len(answer.body)}")


# --- processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVERS)
def test_sigterm_right_after_a_post_delivers_it(kind: str, folder: Path) -> None:
    with RecordingServer() as server:
        port = next(free_ports())
        env = environment(folder, server.url, server.url.replace("http", "varnish"))
        with django_example(kind, port, env) as process:
            for _ in range(3):  # within the throttle's window
                answered(port, "POST", COUNTER, None)
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        pushed = [
            item["formats"]["http-stream"]["content"]
            for item in server.items
            if item["channel"] == "counter-1" and "http-stream" in item["formats"]
        ]

    assert "event: message\ndata: 3\n\n" in pushed


def test_a_process_of_its_own_sends_what_the_workers_leave_to_it(folder: Path) -> None:
    with RecordingServer() as server:
        port = next(free_ports())
        cdn = server.url.replace("http", "varnish")
        store = f"sqlite:///{folder}/store.sqlite3"
        env = environment(folder, server.url, cdn, GRIP_EDGE_STORE=store, DISPATCH="external")
        command = ["examples.django_app.manage", "grip_edge", "dispatch"]
        with django_example("wsgi", port, env):
            answered(port, "POST", COUNTER, None)
            dispatcher = subprocess.Popen(
                [sys.executable, "-m", *command], env={**os.environ, **env}, stderr=subprocess.PIPE
            )
            with dispatcher:
                server.wait_for_channels("counter-1")
                dispatcher.terminate()
        ended = dispatcher.returncode

    assert ended == 0
    assert server.items[0]["formats"]["http-stream"]["content"] == "event: message\ndata: 1\n\n"


# --- behind an edge -------------------------------------------------------------------------------


@pytest.fixture(params=SERVERS)
def demo(edge: Edge, request: pytest.FixtureRequest, folder: Path) -> Iterator[Edge]:
    """An edge with nothing cached, in front of the example."""
    edge.stop_varnish()
    edge.start_varnish()
    env = environment(folder, edge.control_url, edge.cdn_url)
    with django_example(request.param, edge.app_port, env):
        yield edge


@pytest.mark.both_edges
def test_a_post_is_pushed_and_the_next_client_is_served_from_the_cache(demo: Edge) -> None:
    url = demo.url + COUNTER

    async def scenario() -> None:
        async with StreamClient(url, STREAM) as first:
            await first.event(lambda data: data == "0")
            assert first.headers["Content-Type"] == "text/event-stream"
            posted = await asyncio.to_thread(request, url, method="POST", body=b"")
            assert posted.body == b"1\n"
            await first.event(lambda data: data == "1")
        for cached in ("MISS", "HIT"):
            async with StreamClient(url, STREAM) as other:
                await other.event(lambda data: data == "1")
                assert other.headers["X-Cache"] == cached
        # Its text is another copy, under the same key.
        text = await asyncio.to_thread(request, url)
        assert (text.body, text.headers["Content-Type"]) == (b"1\n", "text/plain")

    asyncio.run(scenario())


@pytest.mark.both_edges
@pytest.mark.browser
@pytest.mark.parametrize("demo", ["wsgi"], indirect=True)
def test_the_page_of_one_window_moves_when_another_counts(demo: Edge, tmp_path: Path) -> None:
    with Browser() as browser:
        watcher, presser = (browser.open(f"{demo.url}/pages/1/") for _ in range(2))
        for tab in (watcher, presser):
            tab.wait_for_text("state", "live")
        watcher.run("window.notReloaded = true")

        presser.click("increment")

        watcher.wait_for_text("value", "1")
        presser.wait_for_text("value", "1")
        assert watcher.run("return window.notReloaded === true") is True
        watcher.screenshot(tmp_path / "pushed.png")
