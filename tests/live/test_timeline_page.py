"""The timeline in a real browser: what happens at the embedded edge is drawn, and said in words."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from browser import Browser, Tab

from grip_edge_middleware import GripEdge
from grip_edge_middleware.devedge import TIMELINE_PATH, DevEdge
from grip_edge_middleware.devedge.server import Running
from grip_edge_middleware.journal import Entry
from grip_edge_middleware.watchers import Watchers

pytestmark = [pytest.mark.live, pytest.mark.browser]

HOSTILE = "<img src=x onerror=alert(1)>"


def plain(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return [b"data: 1\n\n"]


class Shop:
    """An app behind an edge that runs, whose timeline is open in a browser."""

    def __init__(self, folder: Path) -> None:
        self.watchers = Watchers(folder)
        self._app: Any = plain
        self.dev_edge = DevEdge(self._late, watch_folder=folder)

    def _late(self, environ: Any, start_response: Any) -> Any:
        return self._app(environ, start_response)

    def start(self, running: Running) -> None:
        self.url = f"{running.url('control')}{TIMELINE_PATH}"
        self.port = running.ports["clients"]
        self.edge = GripEdge(
            settings={
                "grip_url": running.url("control"),
                "cdn": f"varnish://127.0.0.1:{running.ports['cache']}",
                "topics": {"price-{name}": {"routes": ["/prices/<name>"], "hold": "stream"}},
            }
        )
        self._app = self.edge.wsgi(plain)

    def save(self, topic: str) -> None:
        """Change something, as an app of another process would."""
        self.watchers.read(Entry("change", time.time(), names=(topic,), count=1))
        self.edge.submit(topic)
        assert self.edge.flush(10)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path / "w")
    with shop.dev_edge.running() as running, closing(shop.watchers):
        shop.start(running)
        try:
            yield shop
        finally:
            shop.edge.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def tab(shop: Shop, browser: Browser) -> Tab:
    tab = browser.open(shop.url)
    tab.wait_for_text("state", "live")
    return tab


def wait_until_drawn(tab: Tab, *texts: str) -> None:
    for wanted in texts:
        tab.wait_for("rows", lambda found, wanted=wanted: wanted in found)  # type: ignore[misc]


def held(shop: Shop, path: str) -> http.client.HTTPConnection:
    client = http.client.HTTPConnection("127.0.0.1", shop.port, timeout=10)
    client.request("GET", path)
    assert client.getresponse().readline() == b"data: 1\n"
    return client


def test_a_request_and_a_save_are_drawn_as_they_happen(shop: Shop, tab: Tab) -> None:
    with closing(held(shop, "/prices/tea")), closing(held(shop, "/prices/tea")):
        wait_until_drawn(tab, "GET /prices/tea", "MISS", "HIT", "held open")
        tab.wait_for_text("held", "2")
        shop.save("price-tea")
        wait_until_drawn(tab, "saved", "purge", "publish", "push", "\N{MULTIPLICATION SIGN} 2")
        tab.wait_for_text("saves", "1")

    tab.wait_for_text("held", "0")
    wait_until_drawn(tab, "closed")


def test_a_line_that_is_chosen_shows_its_keys_and_versions(shop: Shop, tab: Tab) -> None:
    with closing(held(shop, "/prices/tea")):
        wait_until_drawn(tab, "held open")
        tab.run("document.querySelector('#rows .of-miss button').click()")
        tab.wait_for("inspector", lambda text: "surrogate-key" in text and "prev-id=" in text)

    tab.click("clear")
    tab.wait_for("rows", lambda text: "MISS" not in text)


def test_what_it_is_named_is_only_text(shop: Shop, tab: Tab) -> None:
    topic = f"price-{quote(HOSTILE)}"
    with closing(held(shop, f"/prices/{quote(HOSTILE)}?{HOSTILE.replace(' ', '')}")):
        wait_until_drawn(tab, "onerror")
        shop.watchers.read(Entry("change", time.time(), names=(HOSTILE,), count=1))
        shop.edge.publish(topic, HOSTILE)
        wait_until_drawn(tab, HOSTILE)
    tab.run("document.querySelector('.of-save button').click()")
    tab.wait_for("inspector", lambda text: HOSTILE in text)

    assert tab.run("return document.querySelectorAll('img').length") == 0


def test_a_pause_keeps_what_happens_for_later(shop: Shop, tab: Tab) -> None:
    tab.click("pause")
    tab.wait_for_text("state", "paused")
    with closing(held(shop, "/prices/tea")):
        tab.wait_for_text("requests", "1")
        assert "GET" not in tab.text("rows")
        tab.click("pause")
        wait_until_drawn(tab, "GET /prices/tea")
