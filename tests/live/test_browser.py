"""The examples' pages in a real browser: what changes in one tab shows in the other."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, Tab
from clients import request
from launch import Edge
from test_examples import flask_example, starlette_example, wait_until_refused

pytestmark = [pytest.mark.live, pytest.mark.browser]


@pytest.fixture
def empty_edge(edge: Edge) -> Edge:
    """The edge with nothing cached from another test's app."""
    edge.stop_varnish()
    edge.start_varnish()
    return edge


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def flask_edge(empty_edge: Edge, tmp_path: Path) -> Iterator[Edge]:
    """The edge in front of the Flask example."""
    with flask_example(empty_edge, tmp_path):
        yield empty_edge


@pytest.fixture
def starlette_edge(empty_edge: Edge, tmp_path: Path) -> Iterator[Edge]:
    """The edge in front of the Starlette example."""
    with starlette_example(empty_edge, tmp_path):
        yield empty_edge


def open_live(browser: Browser, url: str, *states: str) -> Tab:
    """A tab whose streams are all up."""
    tab = browser.open(url)
    for state in ("state", *states):
        tab.wait_for_text(state, "live")
    return tab


def mark(tab: Tab) -> None:
    """Leave something that a reload would wipe."""
    tab.run("window.notReloaded = true")


def is_marked(tab: Tab) -> bool:
    return tab.run("return window.notReloaded === true") is True


def test_an_increment_shows_in_the_other_tab(
    flask_edge: Edge, browser: Browser, tmp_path: Path
) -> None:
    page = f"{flask_edge.url}/counters/coffees/"
    watcher, presser = open_live(browser, page), open_live(browser, page)
    watcher.wait_for_text("value", "0")
    mark(watcher)

    presser.click("increment")

    watcher.wait_for_text("value", "1")
    watcher.wait_for_text("source", "pushed")
    assert watcher.text("state") == "live"
    assert is_marked(watcher)
    presser.wait_for_text("source", "pushed")
    watcher.screenshot(tmp_path / "pushed.png")


def test_a_reloaded_page_comes_from_the_cache(
    flask_edge: Edge, browser: Browser, tmp_path: Path
) -> None:
    tab = open_live(browser, f"{flask_edge.url}/counters/coffees/")
    mark(tab)

    # What is younger than a moment counts as fresh from the app, though it came from the cache.
    reload_until(tab, "source", "from the cache")

    assert not is_marked(tab)
    assert re.fullmatch(r"rendered .* before you connected", tab.text("detail"))
    tab.screenshot(tmp_path / "cached.png")


def reload_until(tab: Tab, testid: str, text: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        tab.reload()
        tab.wait_for("source", lambda source: source != "in the page")
        if tab.text(testid) == text:
            return
        assert time.monotonic() < deadline, f"{testid} is {tab.text(testid)!r}"


def test_the_list_shows_a_counter_that_is_made(
    flask_edge: Edge, browser: Browser, tmp_path: Path
) -> None:
    watcher, maker = (open_live(browser, f"{flask_edge.url}/") for _ in range(2))
    mark(watcher)

    maker.type("name", "tea & <cake>")
    maker.click("create")

    watcher.wait_for("counters", lambda text: "tea & <cake>" in text)
    watcher.wait_for_text("value", "1")
    assert is_marked(watcher)
    watcher.screenshot(tmp_path / "list.png")
    counter = open_live(browser, watcher.link("tea & <cake>"))
    counter.wait_for_text("value", "1")


def test_a_bid_shows_in_the_other_tabs(
    starlette_edge: Edge, browser: Browser, tmp_path: Path
) -> None:
    lot = f"{starlette_edge.url}/auctions/1"
    watcher = open_live(browser, lot, "bids-state")
    summary = open_live(browser, f"{starlette_edge.url}/")
    bidder = open_live(browser, lot, "bids-state")
    mark(watcher)
    mark(summary)

    bidder.type("name", "ann")
    bidder.type("amount", "5000")
    bidder.click("bid")

    watcher.wait_for_text("value", "5,000")
    watcher.wait_for("latest", lambda text: "ann" in text and "5,000" in text)
    watcher.wait_for_text("source", "pushed")
    watcher.screenshot(tmp_path / "lot.png")
    summary.wait_for_text("value", "1")
    summary.wait_for("lots", lambda text: "5,000" in text)
    summary.wait_for_text("source", "pushed")
    summary.screenshot(tmp_path / "summary.png")
    assert is_marked(watcher)
    assert is_marked(summary)


def test_a_bid_that_is_too_low_says_why(starlette_edge: Edge, browser: Browser) -> None:
    tab = open_live(browser, f"{starlette_edge.url}/auctions/2", "bids-state")

    tab.type("name", "bob")
    tab.type("amount", "1")
    tab.click("bid")

    tab.wait_for_text("error", "somebody bid 640 already: bid more")
    assert tab.text("value") == "640"


def test_a_page_outlives_the_app_and_shows_what_comes_after(
    empty_edge: Edge, browser: Browser, tmp_path: Path
) -> None:
    page = f"{empty_edge.url}/counters/coffees/"
    with flask_example(empty_edge, tmp_path) as app:
        tab = open_live(browser, page)
        tab.wait_for_text("value", "0")
        mark(tab)
        app.send_signal(signal.SIGKILL)
        app.wait()
    # gunicorn's worker notices that its master is gone; only then the port is free.
    wait_until_refused(empty_edge.app_port)
    assert tab.text("state") == "live"

    with flask_example(empty_edge, tmp_path):
        assert tab.text("state") == "live"
        assert request(f"{page}increment", method="POST", body=b"").status == 200
        tab.wait_for_text("value", "1")
        tab.wait_for_text("source", "pushed")

    assert is_marked(tab)
    tab.screenshot(tmp_path / "outlived.png")


def test_a_page_reconnects_when_pushpin_returns(
    flask_edge: Edge, browser: Browser, tmp_path: Path
) -> None:
    page = f"{flask_edge.url}/counters/coffees/"
    tab = open_live(browser, page)
    mark(tab)
    flask_edge.stop_pushpin()
    try:
        tab.wait_for_text("state", "reconnecting")
        tab.screenshot(tmp_path / "reconnecting.png")
    finally:
        flask_edge.start_pushpin()
    tab.wait_for_text("state", "live", 20)

    assert request(f"{page}increment", method="POST", body=b"").status == 200

    tab.wait_for_text("value", "1")
    assert is_marked(tab)
