"""An app of each framework on each server that can serve it.

What a column of `docs/compatibility.md` says is what its test here finds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import jwt
import pytest

from tests.compatibility.apps.common import HAS_WEBSOCKETS, VERIFY_KEY
from tests.compatibility.conftest import is_about_a_pair, pair_of
from tests.compatibility.matrix import PAIRS, Found, Pair, table
from tests.compatibility.servers import Fleet, Served
from tests.recording import Recorded, bodies
from tools.compatibility_page import PAGE, table_of

Test = Callable[..., None]


def column(name: str) -> Callable[[Test], Test]:
    """Have a test be run for each pair that can have what a column is about."""

    def decorate(test: Test) -> Test:
        pairs = [pair for pair in PAIRS if name not in pair.lacks]
        for_each = pytest.mark.parametrize("pair", pairs, indirect=True, scope="module", ids=str)
        return for_each(pytest.mark.column(name)(test))

    return decorate


@pytest.fixture(scope="module")
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    wanted = dict.fromkeys(map(pair_of, filter(is_about_a_pair, request.session.items)))
    fleet = Fleet([*wanted], tmp_path_factory.mktemp("servers"))
    yield fleet
    fleet.end()


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.param
    return found


@pytest.fixture(scope="module")
def served(pair: Pair, fleet: Fleet) -> Iterator[Served]:
    served = fleet.next(pair)
    yield served
    served.end()


@column("headers")
def test_a_configured_route_gets_its_headers_and_no_other(served: Served) -> None:
    stream = served.ask("GET", "/counters/blue")
    page = served.ask("GET", "/views/blue")
    plain = served.ask("GET", "/plain/blue")

    assert stream.headers["grip-hold"] == "stream"
    assert stream.headers["grip-channel"].startswith("counter-blue; prev-id=")
    assert {"%all", "counter-%all", "counter-blue"} <= {*stream.keys}
    assert page.headers["cache-control"] == "max-age=5, s-maxage=60"
    assert page.headers["surrogate-control"] == "max-age=60, stale-if-error=86400"
    assert "grip-hold" not in page.headers
    assert (plain.status, plain.body) == (200, b"blue")
    assert not {"cache-control", "surrogate-control", "surrogate-key"} & {*plain.headers}
    assert not [name for name in plain.headers if name.startswith("grip-")]


@column("streaming")
def test_a_chunk_leaves_before_the_next_is_made(served: Served) -> None:
    with served.open("GET", "/bodies/blue") as response:
        first = response.readline()
        served.ask("POST", "/bodies/blue")
        second = response.read()

    assert (first, second) == (b"first\n", b"second\n")
    assert "body-blue" in response.headers["surrogate-key"]


@column("sync view")
def test_a_sync_view_tags(served: Served) -> None:
    assert "sync" in served.ask("GET", "/counters/blue").keys


@column("async view")
def test_an_async_view_tags(served: Served) -> None:
    assert "async" in served.ask("GET", "/views/blue").keys


@column("push")
def test_a_change_is_purged_and_its_page_published(served: Served) -> None:
    served.ask("GET", "/counters/red")
    served.ask("POST", "/counters/red")
    served.told.wait_for_channels("counter-red")
    purge, publish = [r for r in served.told.requests if b"counter-red" in r.body or r.is_purge]

    assert "counter-red" in purge.keys
    assert publish.items[0]["formats"]["http-stream"]["content"] == "data: 1\n\n"


@column("next link")
def test_who_missed_something_is_given_the_page_and_nobody_else(served: Served) -> None:
    page = served.ask("GET", "/counters/blue")
    link, _, _ = page.headers["grip-link"].removeprefix("<").partition(">")
    _, _, version = page.headers["grip-channel"].partition("prev-id=")
    missed, has_it = (
        served.ask("GET", link, {"Grip-Last": f"counter-blue; last-id={last}", **signed()})
        for last in ("1", version)
    )

    assert (missed.status, missed.body) == (200, page.body)
    assert (has_it.status, has_it.body) == (200, b"")
    assert missed.headers["grip-channel"] == page.headers["grip-channel"]


def signed() -> dict[str, str]:
    """Return what a GRIP proxy proves with that it is one."""
    claims = {"iss": "pushpin", "exp": int(time.time()) + 60}
    return {"Grip-Sig": jwt.encode(claims, VERIFY_KEY, "HS256")}


@column("long-poll")
def test_a_page_has_the_tag_of_its_version_and_is_held(served: Served) -> None:
    page = served.ask("GET", "/polled/blue")

    assert (page.status, page.body) == (200, b"blue")
    assert (page.headers["grip-hold"], page.headers["grip-timeout"]) == ("response", "55")
    assert page.headers["grip-channel"].startswith("polled-blue; prev-id=")
    assert page.headers["etag"].strip('"') in page.headers["grip-channel"]


@column("304")
def test_an_app_that_says_304_itself_is_held_too(served: Served) -> None:
    unchanged = served.ask("GET", "/unchanged/blue")

    assert (unchanged.status, unchanged.body) == (304, b"")
    assert unchanged.headers["grip-hold"] == "response"
    assert unchanged.headers["grip-channel"].startswith("unchanged-blue; prev-id=")


@column("WebSocket")
@pytest.mark.skipif(not HAS_WEBSOCKETS, reason="the settings know of no WebSockets")
def test_a_websocket_is_opened_with_the_page_and_subscribed(served: Served) -> None:
    """As a GRIP proxy asks: https://pushpin.org/docs/protocols/websocket-over-http/."""
    events = "application/websocket-events"
    headers = {
        "Connection-Id": "1",
        "Content-Type": events,
        "Accept": events,
        "Sec-WebSocket-Extensions": "grip",
        **signed(),
    }
    opened = served.ask("POST", "/rooms/blue", headers, b"OPEN\r\n")

    assert opened.status == 200
    assert opened.headers["content-type"] == events
    assert opened.headers["sec-websocket-extensions"].startswith("grip")
    assert opened.body.startswith(b"OPEN\r\n")
    assert b'"room-blue"' in opened.body
    assert b"blue\r\n" in opened.body


@column("shutdown")
def test_what_waits_is_sent_when_the_server_is_stopped(served: Served) -> None:
    """The last of the pair's tests, for it stops the server."""
    served.ask("POST", "/counters/late")
    served.told.wait_for_channels("counter-late")
    served.ask("POST", "/counters/late")  # this has to wait for an hour
    served.stop()

    served.told.wait_for(lambda seen: "data: 2\n\n" in told_of("counter-late", seen))


def told_of(channel: str, seen: list[Recorded]) -> list[str]:
    """Return what was published to the streams of a channel."""
    return bodies([item for r in seen if r.is_publish for item in r.items], channel)


def test_the_page_says_what_was_found(found: Found) -> None:
    if not found.is_complete:
        pytest.skip("only some of it was tested")
    found.write()

    assert table_of(PAGE.read_text()) == table(found), "python -m tools.compatibility_page"
