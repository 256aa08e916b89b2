"""What the faces answer to a next link, and which versions they say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest

from grip_edge_middleware import GripEdge
from grip_edge_middleware.grip import NEXT_LINKS, next_link, parse_grip_last
from tests.asking import Ask, Counters, ask_asgi, ask_wsgi, link_of, version_of
from tests.recording import RecordingServer

COUNTER = "counter-{name}"


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def edge(server: RecordingServer) -> Iterator[GripEdge]:
    edge = GripEdge(
        settings={
            "cdn": f"varnish://127.0.0.1:{server.port}",
            "grip_url": server.url,
            "confirm_after": 0,
            "topics": {
                COUNTER: {"routes": ["/counters/<name>"], "hold": "stream"},
                "both": {"routes": ["/both/"], "hold": "stream", "recovery": None},
                "left": {"routes": ["/pair/red"], "hold": "stream"},
                "right": {"routes": ["/pair/red"], "hold": "stream"},
            },
        }
    )
    yield edge
    edge.close()


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, edge: GripEdge, counters: Counters) -> Ask:
    """Send a GET through one of the faces."""
    return ask_wsgi(edge, counters) if request.param == "wsgi" else ask_asgi(edge, counters)


def test_a_page_says_its_version_and_its_next_link(ask: Ask) -> None:
    _, headers, _ = ask("/counters/blue")

    assert re.fullmatch(r"counter-blue; prev-id=\d+", headers["grip-channel"])
    assert link_of(headers) == next_link(["counter-blue"])


def test_who_is_up_to_date_gets_nothing_and_stays_held(ask: Ask) -> None:
    _, page, _ = ask("/counters/blue")

    status, headers, body = ask(link_of(page), f"counter-blue; last-id={version_of(page)}")

    assert (status, body) == (200, b"")
    assert headers["grip-hold"] == "stream"
    assert headers["grip-channel"] == page["grip-channel"]
    assert headers["grip-link"] == page["grip-link"]


def test_who_is_behind_gets_the_page_as_it_is_now(ask: Ask, edge: GripEdge) -> None:
    _, page, _ = ask("/counters/blue")
    edge.publish(COUNTER, "x", name="blue")
    assert edge.flush(10)

    _, headers, body = ask(link_of(page), f"counter-blue; last-id={version_of(page)}")

    assert body == b"data: 1\n\n"
    assert int(version_of(headers)) > int(version_of(page))


def test_an_edge_that_heeds_no_vary_is_given_no_answer_to_keep(
    server: RecordingServer, counters: Counters
) -> None:
    # It would answer everybody as the first who asked, whatever they have.
    cdn = {"cloudflare": {"zone_id": "z", "token": "t", "url": server.url}}
    topics = {COUNTER: {"routes": ["/counters/<name>"], "hold": "stream"}}
    edge = GripEdge(settings={"cdn": cdn, "grip_url": server.url, "topics": topics}, environ={})
    ask = ask_wsgi(edge, counters)
    _, page, _ = ask("/counters/blue")

    _, headers, _ = ask(link_of(page), f"counter-blue; last-id={version_of(page)}")
    edge.close()

    assert page["cache-tag"] == "~25all,counter-~25all,counter-blue"
    assert headers["cache-control"] == "private, no-store"
    assert headers["grip-hold"] == "stream"
    assert "cache-tag" not in headers


def test_the_answer_has_the_keys_that_the_page_has_in_its_edges_header(
    server: RecordingServer, counters: Counters
) -> None:
    cdn = {"generic": {"url": server.url, "tags": "X-Tags", "tags_separator": ",", "varies": True}}
    topics = {COUNTER: {"routes": ["/counters/<name>"], "hold": "stream"}}
    edge = GripEdge(settings={"cdn": cdn, "grip_url": server.url, "topics": topics}, environ={})
    counters.headers = [("X-Tags", "of-the-app,more")]
    ask = ask_wsgi(edge, counters)
    _, page, _ = ask("/counters/blue")

    _, headers, _ = ask(link_of(page), "counter-blue; last-id=1")
    edge.close()

    assert headers["x-tags"] == page["x-tags"]
    assert headers["x-tags"].endswith("counter-blue,of-the-app,more")


def test_the_answer_is_cached_and_purged_like_the_page(ask: Ask) -> None:
    _, page, _ = ask("/counters/blue")

    _, headers, _ = ask(link_of(page), "counter-blue; last-id=1")

    for name in ("surrogate-key", "surrogate-control", "cache-control"):
        assert headers[name] == page[name]
    assert "Grip-Last" in headers["vary"]


def test_an_answer_that_was_overtaken_by_a_change_is_not_cached(
    ask: Ask, edge: GripEdge, counters: Counters
) -> None:
    counters.during = lambda: edge.publish(COUNTER, "x", name="blue")

    _, headers, _ = ask(next_link(["counter-blue"]), "counter-blue; last-id=1")

    assert headers["cache-control"] == "private, no-store"
    assert headers["surrogate-control"] == "no-store"
    assert headers["grip-hold"] == "stream"


@pytest.mark.parametrize("path", ["/counters/blue", next_link(["counter-blue"])])
def test_what_was_overtaken_by_a_change_asks_its_link_soon(
    ask: Ask, edge: GripEdge, counters: Counters, path: str
) -> None:
    """It may take longer than the change's marker, and then no item tells its client."""
    counters.during = lambda: edge.publish(COUNTER, "x", name="blue")

    _, headers, _ = ask(path, "counter-blue; last-id=1")

    assert headers["grip-link"].endswith("; rel=next; timeout=1")


def test_the_answer_has_the_keys_that_the_view_adds(
    ask: Ask, edge: GripEdge, counters: Counters
) -> None:
    counters.during = lambda: edge.tag("league")
    counters.headers = [("Surrogate-Key", "own")]

    _, headers, _ = ask(next_link(["counter-blue"]), "counter-blue; last-id=1")

    assert headers["surrogate-key"] == "%all counter-%all counter-blue league own"


@pytest.mark.parametrize(
    "said", [("Set-Cookie", "a=b"), ("Cache-Control", "private"), ("Surrogate-Control", "no-store")]
)
def test_what_the_app_forbids_caches_holds_for_the_answer(
    ask: Ask, counters: Counters, said: tuple[str, str]
) -> None:
    counters.headers = [said]

    _, headers, body = ask(next_link(["counter-blue"]), "counter-blue; last-id=1")

    assert body == b"data: 1\n\n"
    assert headers["surrogate-control"] == "no-store"
    assert "surrogate-key" not in headers
    assert "set-cookie" not in headers


def test_several_topics_are_answered_together(ask: Ask) -> None:
    both = "counter-blue; last-id=1, counter-red; last-id=2"

    _, headers, body = ask(next_link(["counter-blue", "counter-red"]), both)

    assert body == b"data: 1\n\ndata: 7\n\n"
    assert re.fullmatch(
        r"counter-blue; prev-id=\d+, counter-red; prev-id=\d+", headers["grip-channel"]
    )
    assert headers["surrogate-key"] == "%all counter-%all counter-blue counter-red"


def test_a_page_of_two_topics_is_given_once(ask: Ask) -> None:
    _, page, _ = ask("/pair/red")

    _, headers, body = ask(link_of(page), "left; last-id=1, right; last-id=2")

    assert body == b"data: 7\n\n"
    assert headers["grip-channel"] == page["grip-channel"]


def test_the_stream_of_what_is_gone_ends(ask: Ask, counters: Counters) -> None:
    del counters.values["blue"]

    status, headers, body = ask(next_link(["counter-blue"]), "counter-blue; last-id=1")

    assert (status, body) == (200, b"")
    assert "grip-hold" not in headers
    assert "no-store" in headers["cache-control"]


def test_a_failing_app_is_asked_again(ask: Ask, counters: Counters) -> None:
    counters.fails = True

    status, headers, _ = ask(next_link(["counter-blue"]), "counter-blue; last-id=1")

    assert status == 503
    assert "surrogate-key" not in headers


@pytest.mark.parametrize(
    "grip_last", [None, "", "nonsense", "unknown; last-id=1", "both; last-id=1"]
)
def test_a_link_that_names_no_topic_of_ours_is_the_apps(ask: Ask, grip_last: str | None) -> None:
    status, headers, _ = ask(f"{next_link(['x'])}", grip_last)

    assert status == 404
    assert "grip-hold" not in headers


def test_the_link_of_a_mounted_app_leads_back_to_it(ask: Ask) -> None:
    _, headers, _ = ask("/counters/blue", mount="/shop")

    assert link_of(headers) == next_link(["counter-blue"], "/shop")
    assert link_of(headers).startswith("/shop/")


@pytest.mark.parametrize(
    ("mount", "encoded"),
    [
        ("/日", "/%E6%97%A5"),
        ("/a\r\nSet-Cookie: x", "/a%0D%0ASet-Cookie%3A%20x"),
        ("/a>b", "/a%3Eb"),
    ],
)
def test_a_hostile_mount_splits_no_header(
    edge: GripEdge, counters: Counters, mount: str, encoded: str
) -> None:
    as_wsgi_sees_it = mount.encode().decode("latin-1")
    for ask, seen in ((ask_wsgi, as_wsgi_sees_it), (ask_asgi, mount)):
        _, headers, _ = ask(edge, counters)("/counters/blue", mount=seen)

        assert link_of(headers) == next_link(["counter-blue"], encoded)


def test_without_recovery_a_page_says_no_version(edge: GripEdge, counters: Counters) -> None:
    _, headers, _ = ask_wsgi(edge, counters)("/both/")

    assert headers["grip-channel"] == "both"
    assert "grip-link" not in headers


def test_a_name_that_cannot_be_read_back_has_no_next_link(ask: Ask, counters: Counters) -> None:
    name = "x" * 500
    counters.values[name] = 1
    _, headers, _ = ask(f"/counters/{name}")

    assert "prev-id" not in headers["grip-channel"]
    assert "grip-link" not in headers


def test_an_app_that_takes_too_long_is_asked_again(edge: GripEdge) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    face = edge.asgi(app)
    face.renderer._timeout_s = 0.05  # type: ignore[attr-defined]
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"grip-last", b"counter-blue; last-id=1")]
    path = next_link(["counter-blue"])
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    asyncio.run(face(scope, None, send))  # type: ignore[arg-type]

    assert sent[0]["status"] == 503


def test_a_link_is_no_page_even_where_a_route_takes_everything(counters: Counters) -> None:
    edge = GripEdge(
        settings={
            "grip_url": None,
            "topics": {
                "page-{path}": {"routes": ["/<path:path>"], "hold": "stream"},
                "number-{n}": {"routes": ["/numbers/<int:n>"], "hold": "stream"},
            },
        },
        environ={},
    )
    ask = ask_wsgi(edge, counters)
    last = "page-counters%2Fblue; last-id=1"

    assert ask(next_link(["page-counters%2Fblue"]), last)[2] == b"data: 1\n\n"
    # No path shows this one, so there is nothing to render.
    assert "grip-hold" not in ask(next_link(["number-x"]), "number-x; last-id=1")[1]
    # More than a page can have.
    many = ", ".join(f"number-{n}; last-id=1" for n in range(21))
    assert "grip-hold" not in ask(next_link(["x"]), many)[1]
    edge.close()


def test_all_topics_share_a_few_links() -> None:
    links = {next_link([f"counter-{number}"]) for number in range(1_000)}

    assert len(links) == NEXT_LINKS


def test_a_link_does_not_depend_on_the_order_of_the_topics() -> None:
    assert next_link(["a", "b"]) == next_link(["b", "a"])


@pytest.mark.parametrize(
    ("value", "last"),
    [
        ("c; last-id=1", {"c": "1"}),
        ("c;last-id=1,d; last-id=2.c", {"c": "1", "d": "2.c"}),
        ("c%2C; last-id=1", {"c%2C": "1"}),
        ("c", {}),
        ("; last-id=1", {}),
        ("c; other=1", {}),
        ("", {}),
    ],
)
def test_grip_last_is_read_so(value: str, last: dict[str, str]) -> None:
    assert parse_grip_last(value) == last
