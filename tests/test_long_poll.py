"""Long-polls through either face: the tag of a page is that of its version."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grip_edge_middleware import GripEdge
from tests.asking import Ask, Counters, ask_asgi, ask_wsgi
from tests.recording import RecordingServer

COUNTER = "counter-{name}"


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture(params=["next-link", None])
def edge(server: RecordingServer, request: pytest.FixtureRequest) -> Iterator[GripEdge]:
    """Without a cache, so that the face compares; with recovery and without."""
    edge = GripEdge(
        settings={
            "grip_url": server.url,
            "confirm_after": 0,
            "recovery": request.param,
            "topics": {COUNTER: {"routes": ["/counters/<name>"], "hold": "response"}},
        },
        environ={},
    )
    yield edge
    edge.close()


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, edge: GripEdge) -> Ask:
    counters = Counters()
    return ask_wsgi(edge, counters) if request.param == "wsgi" else ask_asgi(edge, counters)


def test_who_has_the_page_is_held(ask: Ask) -> None:
    _, first, _ = ask("/counters/blue")
    _, held, _ = ask("/counters/blue", headers={"If-None-Match": first["etag"]})

    assert "grip-hold" not in first
    assert (held["grip-hold"], held["grip-status"]) == ("response", "304")
    assert held["etag"] == first["etag"]


def test_a_change_gives_the_page_another_tag_which_is_published(
    ask: Ask, edge: GripEdge, server: RecordingServer
) -> None:
    _, before, _ = ask("/counters/blue")
    edge.publish(COUNTER, "news", name="blue")
    assert edge.flush(10)
    _, after, _ = ask("/counters/blue", headers={"If-None-Match": before["etag"]})

    assert "grip-hold" not in after
    [item] = server.items
    assert item["formats"]["http-response"]["headers"]["Etag"] == after["etag"] != before["etag"]
