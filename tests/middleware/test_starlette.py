"""The edge in Starlette and FastAPI stacks, among other middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from grip_edge_middleware import GripEdge, GripEdgeMiddleware
from tests.recording import RecordingServer

SETTINGS: dict[str, Any] = {
    "grip_url": "http://127.0.0.1:9",
    "cdn": "varnish://127.0.0.1:9",
    "topics": {"counter-{name}": {"routes": ["/counters/{name}/"], "hold": "stream"}},
}
BODY = "x" * 2_000


@pytest.fixture
def edge() -> Iterator[GripEdge]:
    with closing(GripEdge(settings=SETTINGS, environ={})) as edge:
        yield edge


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-passed"] = "1"
        return response


def starlette(edge: GripEdge, *middleware: Middleware, **options: Any) -> Starlette:
    async def asynchronous(request: Request) -> PlainTextResponse:
        edge.tag("from-coroutine")
        return PlainTextResponse(BODY)

    def synchronous(request: Request) -> PlainTextResponse:
        edge.tag("from-threadpool")
        return PlainTextResponse(BODY)

    async def stream(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for _ in range(3):
                yield BODY
                await asyncio.sleep(0)

        return StreamingResponse(body())

    routes = [
        Route("/counters/async/", asynchronous),
        Route("/counters/sync/", synchronous),
        Route("/counters/stream/", stream),
    ]
    ours = Middleware(GripEdgeMiddleware, edge=edge)
    return Starlette(routes=routes, middleware=list(middleware) or [ours], **options)


def ours(edge: GripEdge) -> Middleware:
    return Middleware(GripEdgeMiddleware, edge=edge)


STACKS: dict[str, Callable[[GripEdge], list[Middleware]]] = {
    "alone": lambda edge: [ours(edge)],
    "base outside": lambda edge: [Middleware(Passing), ours(edge)],
    "base inside": lambda edge: [ours(edge), Middleware(Passing)],
    "gzip outside": lambda edge: [Middleware(GZipMiddleware), ours(edge)],
    "gzip inside": lambda edge: [ours(edge), Middleware(GZipMiddleware)],
    "all around": lambda edge: [
        Middleware(GZipMiddleware),
        Middleware(Passing),
        ours(edge),
        Middleware(Passing),
    ],
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize(
    ("path", "key"), [("async", "from-coroutine"), ("sync", "from-threadpool"), ("stream", "")]
)
def test_a_stack_keeps_body_headers_and_tags(
    edge: GripEdge, stack: str, path: str, key: str
) -> None:
    client = TestClient(starlette(edge, *STACKS[stack](edge)))

    response = client.get(f"/counters/{path}/")

    assert response.text == BODY * (3 if path == "stream" else 1)
    assert response.headers["grip-channel"].partition(";")[0] == f"counter-{path}"
    assert {f"counter-{path}", key} - {""} <= set(response.headers["surrogate-key"].split())
    assert ("content-encoding" in response.headers) == ("gzip" in stack or stack == "all around")


@pytest.mark.parametrize("make", [Starlette, FastAPI])
def test_settings_may_be_given_in_the_stack(make: Any) -> None:
    app = make(middleware=[Middleware(GripEdgeMiddleware, settings=SETTINGS)])
    app.router.add_route("/counters/{name}/", lambda request: PlainTextResponse("x"))

    response = TestClient(app).get("/counters/blue/")

    assert response.headers["grip-channel"].partition(";")[0] == "counter-blue"


def test_fastapi_endpoints_of_both_kinds_tag(edge: GripEdge) -> None:
    app = FastAPI()
    app.add_middleware(GripEdgeMiddleware, edge=edge)

    @app.get("/counters/sync/")
    def synchronous() -> dict[str, int]:
        edge.tag("from-threadpool")
        return {"value": 1}

    @app.get("/counters/async/")
    async def asynchronous() -> dict[str, int]:
        edge.tag("from-coroutine")
        return {"value": 1}

    client = TestClient(app)

    assert "from-threadpool" in client.get("/counters/sync/").headers["surrogate-key"]
    assert "from-coroutine" in client.get("/counters/async/").headers["surrogate-key"]


def test_a_mounted_app_has_its_own_routes(edge: GripEdge) -> None:
    app = Starlette(routes=[Mount("/api", edge.asgi(starlette(edge, Middleware(Passing))))])

    response = TestClient(app).get("/api/counters/async/")

    assert response.headers["grip-channel"].partition(";")[0] == "counter-async"


def test_an_exception_is_answered_by_starlette(edge: GripEdge) -> None:
    async def broken(request: Request) -> Response:
        raise ZeroDivisionError

    app = Starlette(routes=[Route("/counters/x/", broken)], middleware=[ours(edge)])
    client = TestClient(app, raise_server_exceptions=False)

    response = client.get("/counters/x/")

    assert response.status_code == 500
    assert "grip-hold" not in response.headers


def test_a_change_is_rendered_with_the_app_and_its_lifespan_state() -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        yield {"db": "open"}

    async def view(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.state.db} {request.app.state.shop}")

    with RecordingServer() as server:
        settings = {**SETTINGS, "grip_url": server.url, "cdn": []}
        with closing(GripEdge(settings=settings, environ={})) as edge:
            routes = [Route("/counters/{name}/", view)]
            app = Starlette(routes=routes, middleware=[ours(edge)], lifespan=lifespan)
            app.state.shop = "ours"
            with TestClient(app):
                edge.submit("counter-{name}", name="blue")
                server.wait_for_channels("counter-blue")

            assert server.items[0]["formats"]["http-stream"]["content"] == "open ours"


def test_a_shutdown_delivers_what_is_pending() -> None:
    with RecordingServer() as server:
        settings = {**SETTINGS, "grip_url": server.url, "cdn": [], "throttle": 3600.0}
        with closing(GripEdge(settings=settings, environ={})) as edge:
            with TestClient(starlette(edge)):
                edge.submit("counter-{name}", name="async")
                server.wait_for_channels("counter-async")
                edge.submit("counter-{name}", name="async")

            assert server.channels == ["counter-async"] * 2
            assert edge.health()["pending"] == 0
