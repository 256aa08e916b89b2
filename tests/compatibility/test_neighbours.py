"""The edge among other middleware, on either side of it.

`docs/compatibility.md` says which side is right: these tests show both.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, override_settings
from django.urls import path
from flask import Flask, session
from flask_compress import Compress
from litestar import Litestar
from litestar import get as litestar_get
from litestar.middleware import DefineMiddleware
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from whitenoise import WhiteNoise

from grip_edge_middleware import GripEdge, GripEdgeMiddleware
from grip_edge_middleware.django import edge as django_edge
from grip_edge_middleware.testing import Published, recording
from tests.sources import django_app

SETTINGS: dict[str, Any] = {
    "cdn": "varnish://127.0.0.1:9",
    "grip_url": "http://127.0.0.1:9",
    "topics": {
        "news-{name}": {"routes": ["/news/{name}"], "hold": "stream"},
        "polled": {"routes": ["/polled"], "hold": "response"},
    },
}
# Long enough for anybody to compress it.
PAGE = "data: " + "news " * 500 + "\n\n"
IN_CACHES = "max-age=0, s-maxage=600"
NOT_IN_CACHES = "private, no-store"
OURS = "grip_edge_middleware.django.GripEdgeMiddleware"


@pytest.fixture
def edge() -> Iterator[GripEdge]:
    with closing(GripEdge(settings=SETTINGS, environ={})) as edge:
        yield edge


def pushed(edge: GripEdge) -> list[str]:
    """Return what is published of a change."""
    with recording(edge) as recorded:
        edge.submit("news-{name}", name="blue")
        recorded.settle()
        return [sent.text for sent in recorded.sent if isinstance(sent, Published)]


# --- Starlette --------------------------------------------------------------------------------


async def news(request: Request) -> Response:
    request.app.state.edge.tag("seen")
    if "user" in request.query_params:
        request.session["user"] = request.query_params["user"]
    return PlainTextResponse(PAGE)


@contextmanager
def starlette(edge: GripEdge, other: Middleware, *, is_first: bool) -> Iterator[TestClient]:
    """Serve an app with the edge before another middleware, or after it."""
    ours = Middleware(GripEdgeMiddleware, edge=edge)
    app = Starlette(
        routes=[Route("/news/{name}", news)],
        middleware=[ours, other] if is_first else [other, ours],
    )
    app.state.edge = edge
    with TestClient(app) as client:
        yield client


on_either_side = pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])


@on_either_side
def test_what_starlette_compresses_is_tagged_and_pushed_as_it_is(
    edge: GripEdge, is_first: bool
) -> None:
    with starlette(edge, Middleware(GZipMiddleware), is_first=is_first) as client:
        answer = client.get("/news/blue", headers={"Accept-Encoding": "gzip"})
        texts = pushed(edge)

    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["cache-control"] == IN_CACHES
    assert "seen" in answer.headers["surrogate-key"].split()
    assert answer.text == PAGE
    assert texts == [PAGE]


@on_either_side
def test_a_session_is_kept_out_of_caches_if_the_edge_sees_its_cookie(
    edge: GripEdge, is_first: bool
) -> None:
    other = Middleware(SessionMiddleware, secret_key="of the cookie")
    with starlette(edge, other, is_first=is_first) as client:
        answer = client.get("/news/blue?user=7")

    assert answer.headers["set-cookie"]
    assert answer.headers["cache-control"] == (NOT_IN_CACHES if is_first else IN_CACHES)


@on_either_side
def test_who_may_read_it_elsewhere_is_said_on_either_side(edge: GripEdge, is_first: bool) -> None:
    origin = "https://example.com"
    other = Middleware(CORSMiddleware, allow_origins=[origin])
    with starlette(edge, other, is_first=is_first) as client:
        answer = client.get("/news/blue", headers={"Origin": origin})
        without_origin = client.get("/news/blue")
        preflight = client.options(
            "/news/blue", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
        )

    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"
    assert answer.headers["cache-control"] == IN_CACHES
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "surrogate-key" not in preflight.headers
    # Else a cache would give this one to everybody.
    assert without_origin.headers["vary"] == "Origin"


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["X-Passed"] = "yes"
        return response


@on_either_side
def test_a_view_tags_through_a_base_http_middleware(edge: GripEdge, is_first: bool) -> None:
    with starlette(edge, Middleware(Passing), is_first=is_first) as client:
        answer = client.get("/news/blue")
        texts = pushed(edge)

    assert answer.headers["x-passed"] == "yes"
    assert "seen" in answer.headers["surrogate-key"].split()
    assert answer.headers["grip-hold"] == "stream"
    assert texts == [PAGE]


class Shouting(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        body = b"".join([chunk async for chunk in response.body_iterator])  # type: ignore[attr-defined]
        return Response(body.upper(), media_type="text/plain")


@on_either_side
def test_a_body_is_pushed_as_what_is_behind_the_edge_makes_it(
    edge: GripEdge, is_first: bool
) -> None:
    with starlette(edge, Middleware(Shouting), is_first=is_first) as client:
        answer = client.get("/news/blue")
        texts = pushed(edge)

    assert answer.text == PAGE.upper()
    assert texts == [PAGE.upper() if is_first else PAGE]


@litestar_get("/news/{name:str}")
async def litestar_news(name: FromPath[str]) -> str:
    return PAGE


@on_either_side
def test_a_next_link_is_answered_around_an_app_of_litestars_and_not_within(
    edge: GripEdge, is_first: bool
) -> None:
    """Litestar's own middleware sees no request for which it has no route."""
    within: list[Any] = [] if is_first else [DefineMiddleware(GripEdgeMiddleware, edge=edge)]  # type: ignore[arg-type]
    litestar: Any = Litestar([litestar_news], middleware=within)
    app = edge.asgi(litestar) if is_first else litestar
    with TestClient(app) as client:
        link, _, _ = client.get("/news/blue").headers["grip-link"][1:].partition(">")
        missed = client.get(link, headers={"Grip-Last": "news-blue; last-id=1"})

    assert (missed.status_code, missed.text == PAGE) == ((200, True) if is_first else (404, False))


# --- WSGI -------------------------------------------------------------------------------------


def flask_app() -> Flask:
    app = Flask(__name__)
    app.secret_key = "of the cookie"
    app.config["GRIP_EDGE"] = SETTINGS

    @app.get("/news/<name>")
    def news(name: str) -> str:
        app.extensions["grip_edge"].tag("seen")
        return PAGE

    @app.get("/polled")
    def polled() -> str:
        session["user"] = 7
        return PAGE

    return app


@on_either_side
def test_what_flask_compresses_is_tagged_and_pushed_as_it_is(is_first: bool) -> None:
    """Flask-Compress is within the app, whoever comes first."""
    app = flask_app()
    if not is_first:
        Compress(app)
    with closing(GripEdge(app, environ={})) as edge:
        if is_first:
            Compress(app)
        answer = app.test_client().get("/news/blue", headers={"Accept-Encoding": "gzip"})
        texts = pushed(edge)

    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.headers["Cache-Control"] == IN_CACHES
    assert "seen" in answer.headers["Surrogate-Key"].split()
    assert gzip.decompress(answer.data).decode() == PAGE
    assert texts == [PAGE]


def test_a_session_of_flask_is_kept_out_of_caches() -> None:
    app = flask_app()
    with closing(GripEdge(app, environ={})):
        answer = app.test_client().get("/polled")

    assert answer.headers["Set-Cookie"]
    assert answer.headers["Cache-Control"] == NOT_IN_CACHES


@on_either_side
def test_whitenoise_answers_for_its_files_and_leaves_the_rest(
    is_first: bool, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("a file")
    app = flask_app()
    if is_first:
        app.wsgi_app = WhiteNoise(app.wsgi_app, root=tmp_path, prefix="static/")  # type: ignore[method-assign]
    with closing(GripEdge(app, environ={})):
        if not is_first:
            app.wsgi_app = WhiteNoise(app.wsgi_app, root=tmp_path, prefix="static/")  # type: ignore[method-assign]
        file = app.test_client().get("/static/a.txt")
        page = app.test_client().get("/news/blue")
        text = file.text
        file.close()

    assert text == "a file"
    assert file.headers["Cache-Control"] == "max-age=60, public"
    assert "Surrogate-Key" not in file.headers
    assert "seen" in page.headers["Surrogate-Key"].split()


# --- Django -----------------------------------------------------------------------------------


def django_news(request: HttpRequest, name: str) -> HttpResponse:
    django_edge.tag("seen")
    if "user" in request.GET:
        request.session["user"] = request.GET["user"]
    return HttpResponse(PAGE, content_type="text/event-stream")


def django_polled(request: HttpRequest) -> HttpResponse:
    return HttpResponse(PAGE)


urlpatterns = [path("news/<name>", django_news), path("polled", django_polled)]


django_app.setup()


@contextmanager
def project(other: str, *, is_first: bool) -> Iterator[None]:
    with override_settings(
        GRIP_EDGE={**SETTINGS, "flush_timeout": 0},
        MIDDLEWARE=[OURS, other] if is_first else [other, OURS],
        ROOT_URLCONF=__name__,
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    ):
        yield


@on_either_side
def test_what_django_compresses_is_tagged_and_pushed_as_it_is(is_first: bool) -> None:
    with project("django.middleware.gzip.GZipMiddleware", is_first=is_first):
        answer = Client().get("/news/blue", headers={"Accept-Encoding": "gzip"})
        polled = Client().get("/polled", headers={"Accept-Encoding": "gzip"})
        texts = pushed(django_edge)

    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.headers["Cache-Control"] == IN_CACHES
    assert "seen" in answer.headers["Surrogate-Key"].split()
    assert gzip.decompress(answer.content).decode() == PAGE
    assert texts == [PAGE]
    # Django makes the tag of what it compresses a weak one. It is compared all the same.
    assert polled.headers["ETag"].startswith('"' if is_first else 'W/"')


@on_either_side
def test_a_session_of_django_is_kept_out_of_caches_if_the_edge_sees_its_cookie(
    is_first: bool,
) -> None:
    with project("django.contrib.sessions.middleware.SessionMiddleware", is_first=is_first):
        answer = Client().get("/news/blue?user=7")

    assert answer.cookies["sessionid"]
    assert answer.headers["Cache-Control"] == (NOT_IN_CACHES if is_first else IN_CACHES)


# --- what compresses without being asked -----------------------------------------------------


def test_what_is_compressed_for_nobody_is_not_pushed() -> None:
    """A stream would go on in bytes that its clients take for text."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Encoding", "gzip")])
        return [gzip.compress(PAGE.encode())]

    with closing(GripEdge(settings=SETTINGS, environ={})) as edge:
        edge.wsgi(app)
        with recording(edge) as recorded:
            edge.submit("news-{name}", name="blue")
            recorded.advance(0)
            texts = [sent.text for sent in recorded.sent if isinstance(sent, Published)]
            said = recorded.logged

    assert texts == []
    assert "answered in gzip, which was not accepted" in said[0]
