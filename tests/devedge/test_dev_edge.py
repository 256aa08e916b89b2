"""The development edge around an app in the same process: the middleware runs unchanged."""

from __future__ import annotations

import http.client
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from grip_edge_middleware import GripEdge
from grip_edge_middleware.devedge import VERIFY_KEY, DevEdge
from grip_edge_middleware.devedge.server import Running

DEADLINE_S = 10.0
TOPICS = {
    "value-{name}": {"routes": ["/stream/{name}"], "hold": "stream", "throttle": 0},
    "poll-{name}": {"routes": ["/poll/{name}"], "hold": "response", "throttle": 0},
}


@dataclass
class Served:
    """An app that shows one value, behind the edge."""

    kind: str
    cdn: str
    value: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        self.face: Any = None  # once the ports are known
        self.dev_edge = DevEdge(self._late_asgi if self.kind == "asgi" else self._late)

    def start(self, running: Running) -> None:
        self.running = running
        fastly = {"service_id": "S", "token": "t", "url": running.url("control")}
        varnish = f"varnish://127.0.0.1:{running.ports['cache']}"
        self.grip_edge = GripEdge(
            settings={
                "grip_url": f"{running.url('control')}?verify-iss=pushpin&verify-key={VERIFY_KEY}",
                "cdn": {"fastly": fastly} if self.cdn == "fastly" else varnish,
                "topics": TOPICS,
            }
        )
        is_asgi = self.kind == "asgi"
        grip_edge = self.grip_edge
        self.face = grip_edge.asgi(self._asgi_app) if is_asgi else grip_edge.wsgi(self._wsgi_app)

    def _late(self, environ: Any, start_response: Any) -> Any:
        return self.face(environ, start_response)

    async def _late_asgi(self, scope: Any, receive: Any, send: Any) -> None:
        await self.face(scope, receive, send)

    @property
    def body(self) -> bytes:
        self.asked += 1
        return b"data: %d\n\n" % self.value

    def _wsgi_app(self, environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [self.body]

    async def _asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            response = PlainTextResponse(self.body, media_type="text/event-stream")
            await response(scope, receive, send)

    def change(self, topic: str) -> None:
        self.value += 1
        self.grip_edge.submit(topic)
        assert self.grip_edge.flush(DEADLINE_S)


@contextmanager
def served(kind: str = "wsgi", cdn: str = "varnish") -> Iterator[Served]:
    app = Served(kind, cdn)
    with app.dev_edge.running() as running:
        app.start(running)
        try:
            yield app
        finally:
            app.grip_edge.close()


@contextmanager
def client(running: Running, path: str, **headers: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(
        "127.0.0.1", running.ports["clients"], timeout=DEADLINE_S
    )
    try:
        connection.request(
            "GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        response = connection.getresponse()
        yield response
        response.close()
    finally:
        connection.close()


def event(response: http.client.HTTPResponse) -> bytes:
    lines = iter(response.readline, b"")
    found = next(line for line in lines if line.startswith(b"data:"))
    response.readline()
    return found.strip()


def post(url: str, body: object, **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(url, json.dumps(body).encode(), named, method="POST")
    try:
        with urlopen(request, timeout=DEADLINE_S) as answer:
            return int(answer.status)
    except HTTPError as refused:
        refused.close()
        return refused.code


@pytest.mark.parametrize("cdn", ["varnish", "fastly"])
@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_change_reaches_who_is_held_and_who_comes_later(kind: str, cdn: str) -> None:
    with (
        served(kind, cdn) as app,
        client(app.running, "/stream/a") as first,
        client(app.running, "/stream/a") as second,
    ):
        assert [event(first), event(second)] == [b"data: 0"] * 2
        assert (first.headers["X-Cache"], second.headers["X-Cache"], app.asked) == (
            "MISS",
            "HIT",
            1,
        )
        app.change("value-a")

        assert [event(first), event(second)] == [b"data: 1"] * 2
        with client(app.running, "/stream/a") as late:
            assert event(late) == b"data: 1"


def test_a_long_poll_is_held_until_there_is_news() -> None:
    with served() as app:
        with client(app.running, "/poll/a") as first:
            assert first.read() == b"data: 0\n\n"
        connection = http.client.HTTPConnection("127.0.0.1", app.running.ports["clients"])
        connection.request("GET", "/poll/a", headers={"If-None-Match": first.headers["ETag"]})
        while not app.dev_edge.proxy.is_watched("poll-a"):
            pass
        app.change("poll-a")
        answer = connection.getresponse()

        assert (answer.status, answer.read()) == (200, b"data: 1\n\n")
        assert answer.headers["ETag"] != first.headers["ETag"]
        connection.close()


def test_the_app_starts_and_ends_with_the_edge() -> None:
    said = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        said.append("start")
        yield {"name": "of the lifespan"}
        said.append("end")

    async def page(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse(request.state.name)

    app = Starlette(routes=[Route("/", page)], lifespan=lifespan)
    with DevEdge(app).running() as running, client(running, "/") as answer:
        assert (answer.read(), said) == (b"of the lifespan", ["start"])

    assert said == ["start", "end"]


def test_an_app_that_streams_by_itself_is_passed_on_as_it_comes() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        yield b"data: 1\n\n"
        told.wait(DEADLINE_S)
        yield b"data: 2\n\n"

    told = threading.Event()
    with DevEdge(app).running() as running, client(running, "/") as answer:
        assert event(answer) == b"data: 1"
        told.set()
        assert event(answer) == b"data: 2"


def test_an_app_that_fails_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise RuntimeError("not today")

    with DevEdge(app).running() as running, client(running, "/") as answer:
        assert answer.status == 500

    assert "not today" in caplog.text


def test_nobody_at_the_url_is_a_503() -> None:
    with DevEdge("http://127.0.0.1:9").running() as running, client(running, "/") as answer:
        assert answer.status == 503


def test_it_says_that_it_is_for_development(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), DevEdge("http://127.0.0.1:9").running():
        pass

    assert "for development only" in caplog.text


ITEM = {"items": [{"channel": "c", "formats": {"http-stream": {"content": "x"}}}]}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer secret" + "-" * 32},
        {"Fastly_Key": "secret" + "-" * 32},
        {"Authorization": f"Bearer {jwt.encode({'iss': 'me'}, 'secret' + '-' * 32)}"},
    ],
)
def test_a_control_key_is_asked_for(headers: dict[str, str]) -> None:
    edge = DevEdge("http://127.0.0.1:9", control_key="secret" + "-" * 32)
    with edge.running() as running:
        assert post(f"{running.url('control')}/publish/", ITEM, **headers) == 200
        for wrong in ({}, {"Authorization": "Bearer x"}):
            assert post(f"{running.url('control')}/publish/", ITEM, **wrong) == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/publish/", {"items": [{"channel": 7}]}),
        ("/service/S/purge", {}),
        ("/service/S/purge", {"surrogate_keys": [str(number) for number in range(257)]}),
    ],
    ids=["publish", "no-keys", "too-many-keys"],
)
def test_what_is_wrong_is_refused(path: str, body: object) -> None:
    with DevEdge("http://127.0.0.1:9").running() as running:
        assert post(running.url("control") + path, body) == 400


def test_fastlys_other_purges() -> None:
    with served(cdn="fastly") as app:
        for path in ("/service/S/purge/value-a", "/service/S/purge_all", "/service/S/purge"):
            with client(app.running, "/stream/a") as answer:
                assert answer.headers["X-Cache"] == "MISS"
            url = app.running.url("control") + path
            assert post(url, {}, Surrogate_Key="value-a other") == 200
        assert app.asked == 3
