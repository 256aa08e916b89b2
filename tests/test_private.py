"""Private topics: never cached, held only for a GRIP proxy, caught up with at a signed link."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from grip_edge_middleware import GripEdge, SettingsError
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.grip import next_link, private_next_link
from grip_edge_middleware.render import ASGIRenderer, OriginRenderer
from grip_edge_middleware.transport import HttpTransport
from tests.asking import Ask, Counters, ask_asgi, ask_wsgi, link_of, version_of
from tests.recording import RecordingServer

COUNTER = "counter-{name}"
SECRET = "a secret of ours, for tests only"
VERIFY_KEY = "the key with which the proxy signs"
PRIVATE = {"routes": ["/counters/<name>"], "hold": "stream", "private": True}


def signed(key: str = VERIFY_KEY, **claims: Any) -> dict[str, str]:
    token = jwt.encode({"iss": "pushpin", "exp": time.time() + 3600, **claims}, key.ljust(32, "\0"))
    return {"Grip-Sig": token}


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def edge(server: RecordingServer) -> Iterator[GripEdge]:
    edge = GripEdge(
        settings={
            "cdn": f"varnish://127.0.0.1:{server.port}",
            "grip_url": server.url,
            "confirm_after": 0,
            "topics": {
                COUNTER: PRIVATE,
                "open": {"routes": ["/open/red"], "hold": "stream"},
            },
        },
        environ={"GRIP_VERIFY_KEY": VERIFY_KEY, "GRIP_EDGE_SECRET": SECRET},
    )
    yield edge
    edge.close()


class GuardedCounters(Counters):
    """Counters that are shown to the edge itself only, and to who is logged in."""

    def __init__(self, edge: GripEdge) -> None:
        super().__init__()
        self.edge = edge
        self.is_logged_in = False

    def answer(self, path: str) -> tuple[int, bytes]:
        if not self.edge.is_rendering and not self.is_logged_in:
            return 403, b"who are you?"
        return super().answer(path)


@pytest.fixture
def counters(edge: GripEdge) -> GuardedCounters:
    counters = GuardedCounters(edge)
    counters.is_logged_in = True
    return counters


@pytest.fixture(params=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest, edge: GripEdge, counters: GuardedCounters) -> Ask:
    """Send a GET through one of the faces."""
    return ask_wsgi(edge, counters) if request.param == "wsgi" else ask_asgi(edge, counters)


def test_a_private_page_is_held_for_the_proxy_and_never_cached(ask: Ask) -> None:
    status, headers, body = ask("/counters/blue", headers=signed())

    assert (status, body) == (200, b"data: 1\n\n")
    assert headers["cache-control"] == "private, no-store"
    assert headers["surrogate-control"] == "no-store"
    assert "surrogate-key" not in headers
    assert headers["grip-hold"] == "stream"
    assert link_of(headers) == private_next_link(["counter-blue"], SECRET)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({}, "Grip-Sig is missing"),
        (signed("another key, and as long as it"), "signed with another key"),
        (signed(exp=1), "expired"),
        ({"Grip-Sig": "x.y.z"}, "not a signed JWT"),
    ],
    ids=["missing", "forged", "expired", "garbage"],
)
def test_who_is_not_the_proxy_gets_the_page_and_no_link(
    ask: Ask, headers: dict[str, str], reason: str, caplog: pytest.LogCaptureFixture, once: None
) -> None:
    for _ in range(3):
        status, answered, body = ask("/counters/blue", headers=headers)

    assert (status, body) == (200, b"data: 1\n\n")
    assert not [name for name in answered if name.startswith("grip-")]
    [warning] = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert reason in warning
    assert "GRIP_VERIFY_KEY" in warning
    assert VERIFY_KEY not in warning


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process, nothing has been said yet."""
    monkeypatch.setattr("grip_edge_middleware.policy._asked_by_strangers", set())


def test_the_signed_link_is_answered_to_the_proxy(ask: Ask, counters: GuardedCounters) -> None:
    _, page, _ = ask("/counters/blue", headers=signed())
    # A proxy asks without the client's cookies.
    counters.is_logged_in = False

    last = f"counter-blue; last-id={version_of(page)}"
    status, headers, body = ask(link_of(page), last, headers=signed())
    _, _, missed = ask(link_of(page), "counter-blue; last-id=1", headers=signed())

    assert (status, body, missed) == (200, b"", b"data: 1\n\n")
    assert headers["cache-control"] == "private, no-store"
    assert headers["surrogate-control"] == "no-store"
    assert headers["grip-link"] == page["grip-link"]


def test_the_signed_link_refuses_everybody_else(ask: Ask) -> None:
    link = private_next_link(["counter-blue"], SECRET)

    status, headers, body = ask(link, "counter-blue; last-id=1")

    assert status == 403
    assert body == b"This link is for the GRIP proxy only: Grip-Sig is missing\n"
    assert headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize(
    "link",
    [
        next_link(["counter-blue"]),
        private_next_link(["counter-red"], SECRET),
        private_next_link(["counter-blue", "counter-red"], SECRET),
        private_next_link(["counter-blue"], "another secret, as long as it"),
        private_next_link(["counter-blue"], SECRET) + "0",
        private_next_link(["counter-blue"], SECRET).upper(),
        "/.grip-edge/next/private/",
        "/.grip-edge/next/private/é",
    ],
)
def test_a_link_that_was_not_given_out_for_a_topic_does_not_show_it(ask: Ask, link: str) -> None:
    status, _, body = ask(link, "counter-blue; last-id=1", headers=signed())

    assert b"data" not in body
    assert status in (403, 404)


def test_a_public_link_is_for_the_proxy_too_where_its_key_is_known(ask: Ask) -> None:
    link = next_link(["open"])

    assert ask(link, "open; last-id=1")[0] == 403
    assert ask(link, "open; last-id=1", headers=signed())[2] == b"data: 7\n\n"


def test_what_is_pushed_is_rendered_as_the_edge_sees_it(
    edge: GripEdge, counters: GuardedCounters, server: RecordingServer
) -> None:
    edge.wsgi(counters.wsgi)
    counters.is_logged_in = False
    edge.submit(COUNTER, name="blue")
    assert edge.flush(10)

    [item] = server.items
    assert item["formats"] == {"http-stream": {"content": "data: 1\n\n"}}
    assert not edge.is_rendering


def test_what_a_view_starts_is_not_the_edge_for_ever(edge: GripEdge) -> None:
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def later() -> None:
            await is_answered.wait()
            seen.append(edge.is_rendering)

        seen.append(edge.is_rendering)
        tasks.append(asyncio.create_task(later()))
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    async def scenario() -> None:
        await ASGIRenderer(app, timeout_s=5).respond("/", None, is_private=True)
        is_answered.set()
        await tasks[0]

    tasks: list[asyncio.Task[None]] = []
    is_answered = asyncio.Event()
    asyncio.run(scenario())

    assert seen == [True, False]


def test_the_origin_is_not_asked_for_what_is_private() -> None:
    renderer = OriginRenderer("http://localhost:1", HttpTransport(timeout_s=1))

    with pytest.raises(DeliveryError, match="rendered by its app only") as raised:
        renderer.render("/counters/blue", None, is_private=True)

    assert raised.value.is_final


def test_a_public_topic_does_not_show_a_private_page_that_its_route_matches_too(
    server: RecordingServer,
) -> None:
    edge = GripEdge(
        settings={
            "grip_url": server.url,
            "topics": {
                COUNTER: PRIVATE,
                "page-{kind}:{name}": {"routes": ["/<kind>/<name>"], "hold": "stream"},
            },
        },
        environ={"GRIP_VERIFY_KEY": VERIFY_KEY, "GRIP_EDGE_SECRET": SECRET},
    )
    ask = ask_wsgi(edge, GuardedCounters(edge))
    name = "page-counters:blue"

    status, _, body = ask(next_link([name]), f"{name}; last-id=1", headers=signed())
    edge.close()

    assert (status, body) == (503, b"")


def settings(**changed: Any) -> dict[str, Any]:
    return {"grip_url": "http://localhost:5561", "topics": {COUNTER: PRIVATE}, **changed}


@pytest.mark.parametrize(
    ("changed", "environ", "mistakes"),
    [
        (
            {},
            {},
            [
                f'topics["{COUNTER}"].private: no verify key',
                "secret: missing, and it signs the next links of private topics",
            ],
        ),
        (
            {"secret": SECRET, "grip_url": None},
            {"GRIP_VERIFY_KEY": VERIFY_KEY},
            [f'topics["{COUNTER}"].private: no verify key'],
        ),
        (
            {"secret": "too short"},
            {"GRIP_VERIFY_KEY": VERIFY_KEY},
            ["secret: expected a text of 16 characters or more"],
        ),
        ({"secret": 5}, {"GRIP_VERIFY_KEY": VERIFY_KEY}, ["secret: expected a text of 16"]),
        (
            {"secret": SECRET, "public": True},
            {"GRIP_VERIFY_KEY": VERIFY_KEY},
            [f'topics["{COUNTER}"].private: /counters/<name> is public'],
        ),
        (
            {
                "secret": SECRET,
                "topics": {COUNTER: PRIVATE, "n-{name}": {"routes": ["/counters/<name>"]}},
            },
            {"GRIP_VERIFY_KEY": VERIFY_KEY},
            ['topics["n-{name}"].private: /counters/<name> is private in one topic and not in'],
        ),
    ],
)
def test_private_topics_need_what_keeps_them_private(
    changed: dict[str, Any], environ: dict[str, str], mistakes: list[str]
) -> None:
    with pytest.raises(SettingsError) as raised:
        GripEdge(settings=settings(**changed), environ=environ)

    found = [str(mistake) for mistake in raised.value.mistakes]
    assert len(found) == len(mistakes)
    for told, expected in zip(found, mistakes, strict=True):
        assert told.startswith(expected)
        assert "too short" not in told


def test_without_next_links_no_secret_is_needed() -> None:
    edge = GripEdge(settings=settings(recovery=None), environ={"GRIP_VERIFY_KEY": VERIFY_KEY})

    assert SECRET not in repr(edge)
    edge.close()
