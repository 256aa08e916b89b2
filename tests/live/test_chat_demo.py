"""The chat, as users run it: WebSockets of a WSGI app, in a browser."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser
from clients import request
from launch import Edge
from servers import command_server, wait_until_reached
from websocket import create_connection

pytestmark = [pytest.mark.live, pytest.mark.both_edges]

GUNICORN = ["-m", "gunicorn", "--threads=8", "--log-level=warning"]


@pytest.fixture(scope="module")
def chat(socket_edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder: Path = tmp_path_factory.mktemp("chat")
    env = {
        "GRIP_URL": socket_edge.control_url,
        "GRIP_VERIFY_KEY": socket_edge.verify_key,
        "GRIP_EDGE_SECRET": "a secret of thirty-two characters",
        "EDGE_CDN": socket_edge.cdn_url,
        "DATABASE_URL": f"sqlite:///{folder}/chat.sqlite3",
    }
    command = [*GUNICORN, f"--bind=127.0.0.1:{socket_edge.app_port}", "examples.chat_app.app:app"]
    with command_server([sys.executable, *command], socket_edge.app_port, env=env):
        wait_until_reached(f"{socket_edge.url}/rooms/none/")
        yield socket_edge


def test_what_one_says_all_hear_and_its_mistakes_hears_nobody_else(chat: Edge) -> None:
    url = f"ws://127.0.0.1:{chat.client_port}/rooms/a/socket"
    ann, bob = (create_connection(f"{url}?as={name}", timeout=15) for name in ("ann", "bob"))
    for socket in (ann, bob):
        assert json.loads(socket.recv()) == {"messages": []}
    ann.send("")
    assert "1 to 300" in json.loads(ann.recv())["error"]
    ann.send("hello")
    heard = [json.loads(socket.recv()) for socket in (ann, bob)]
    page = request(f"{chat.url}/rooms/a/")
    for socket in (ann, bob):
        socket.close()
        socket.shutdown()  # type: ignore[no-untyped-call]

    assert heard == [{"messages": [{"author": "ann", "text": "hello"}]}] * 2
    assert b"<b>ann</b> hello" in page.body


@pytest.mark.browser
def test_two_windows_talk(chat: Edge, tmp_path: Path) -> None:
    with Browser() as browser:
        tabs = [browser.open(f"{chat.url}/rooms/lobby/") for _ in range(2)]
        for tab in tabs:
            tab.wait_for_text("state", "live")
            tab.run("window.notReloaded = true")

        tabs[0].type("text", "hello")
        tabs[0].click("say")

        for tab in tabs:
            tab.wait_for_text("messages", "somebody hello")
            assert tab.run("return window.notReloaded === true") is True
        tabs[1].screenshot(tmp_path / "chat.png")
