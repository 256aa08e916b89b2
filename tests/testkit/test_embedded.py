"""An app behind the embedded edge, as a test of it talks to it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from flask import Flask, Response
from starlette.applications import Starlette

from grip_edge_middleware import GripEdge
from grip_edge_middleware.testing import (
    EmbeddedEdge,
    assert_hit,
    assert_miss,
    assert_published,
    assert_purged_before_published,
    embedded,
)

SECRET = "a-secret-of-this-app-and-nobody-elses"
SETTINGS = {
    "grip_url": f"http://127.0.0.1:9?verify-iss=pushpin&verify-key={SECRET}",
    "cdn": ["varnish://127.0.0.1:9", "fastly://SERVICE"],
    "secret": SECRET,
    "regions": {"eu": {"cdn": "varnish://127.0.0.2:9"}},
    "topics": {
        "value": {"routes": ["/value"], "hold": "stream"},
        "lines": {"routes": ["/lines"], "hold": "stream"},
        "inbox": {"routes": ["/inbox"], "hold": "stream", "private": True},
    },
}


@pytest.fixture
def edge() -> Iterator[GripEdge]:
    with closing(GripEdge(settings=SETTINGS, environ={"FASTLY_API_TOKEN": "token"})) as edge:
        yield edge


@pytest.fixture
def live(edge: GripEdge) -> Iterator[EmbeddedEdge]:
    app = Flask(__name__)

    @app.get("/value")
    def value() -> Response:
        return Response("id: 7\nevent: score\ndata: 1\ndata: 2\n\n", mimetype="text/event-stream")

    @app.get("/lines")
    def lines() -> Response:
        return Response("one\ntwo\n", mimetype="text/plain")

    @app.get("/inbox")
    def inbox() -> Response:
        return Response("data: mail\n\n", mimetype="text/event-stream")

    with embedded(edge, edge.wsgi(app.wsgi_app)) as live:
        yield live


def test_what_is_sent_arrives_wherever_it_was_to_go(edge: GripEdge, live: EmbeddedEdge) -> None:
    with live.stream("/value") as stream:
        assert_miss(stream)
        first = stream.next_event()
        edge.publish("value", "data: pushed\n\n")
        pushed = stream.next_event()
    live.settle()

    assert (first.data, first.event, first.id) == ("1\n2", "score", "7")
    assert (pushed.data, pushed.event, pushed.id) == ("pushed", "message", "")
    assert_purged_before_published(live, "value")
    assert [sent.target for sent in live.purges][:3] == [
        "varnish http://127.0.0.1:9",
        "fastly SERVICE",
        "eu varnish http://127.0.0.2:9",
    ]
    with live.stream("/value") as stream:
        assert_miss(stream)
    with live.stream("/value") as stream:
        assert_hit(stream)


def test_any_other_stream_is_read_line_by_line(live: EmbeddedEdge) -> None:
    with live.stream("/lines") as stream:
        assert [stream.next_event().data for _ in range(2)] == ["one", "two"]


def test_a_private_page_is_held_by_the_secret_of_the_settings(
    edge: GripEdge, live: EmbeddedEdge
) -> None:
    with live.stream("/inbox") as stream:
        assert stream.next_event().data == "mail"
        edge.publish("inbox", "data: more\n\n")

        assert stream.next_event().data == "more"


def test_a_stream_that_says_nothing_is_said(edge: GripEdge, live: EmbeddedEdge) -> None:
    with live.stream("/value") as stream:
        stream.next_event()
        edge.publish("lines", "three\n")
        live.settle()
        with pytest.raises(AssertionError) as error:
            stream.next_event(timeout=0)

    said = str(error.value).splitlines()
    assert said[:2] == [
        "no event within 0 s on /value, answered with 200; events before:",
        "  '1\\n2'",
    ]
    assert "  3. publish lines: 'three\\n'  [grip http://127.0.0.1:9]" in said


def test_a_stream_that_has_ended_is_said(live: EmbeddedEdge) -> None:
    with live.stream("/nothing") as stream:
        while True:  # the lines of Flask's page for 404
            try:
                stream.next_event()
            except AssertionError as error:
                ended = str(error)
                break

    assert "no event: the stream has ended on /nothing, answered with 404" in ended


def test_a_get_of_a_stream_is_told_how(live: EmbeddedEdge) -> None:
    with pytest.raises(AssertionError, match=r'did not end within 0\.1 s.*stream\("/value"\)'):
        live.get("/value", timeout=0.1)


def test_what_is_pending_at_the_end_holds_nobody_up(edge: GripEdge) -> None:
    app = Flask(__name__)
    with embedded(edge, edge.wsgi(app.wsgi_app)) as live:
        live.settle()
        edge.publish("value", "data: late\n\n")

    assert edge.health()["pending"] == 0


def test_what_an_app_changes_while_it_shuts_down_is_kept_and_goes_nowhere(edge: GripEdge) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        edge.publish("value", "data: the end\n\n")

    with embedded(edge, edge.asgi(Starlette(lifespan=lifespan))) as live:
        pass

    assert_published(live, "value", containing="the end")


def test_an_app_that_is_served_again_is_served_anew(edge: GripEdge) -> None:
    app = edge.wsgi(Flask(__name__).wsgi_app)
    for _ in range(2):
        with embedded(edge, app) as live:
            edge.publish("value", "data: 1\n\n")
            live.settle()

        assert_published(live, "value", times=1)


def test_without_the_extra_it_is_named(edge: GripEdge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grip_edge_middleware.devedge", None)

    def app(environ: Any, start_response: Any) -> Any: ...

    with (
        pytest.raises(ImportError, match=r"pip install 'grip-edge-middleware\[dev\]'"),
        embedded(edge, app),
    ):
        pass
