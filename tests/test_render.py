"""What the dispatcher gets when it asks the app for what a stranger's GET is answered."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any
from wsgiref.validate import validator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from grip_edge_middleware import GripEdge
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.render import (
    MAX_BODY_BYTES,
    ASGIRenderer,
    OriginRenderer,
    Renderer,
    WSGIRenderer,
)
from grip_edge_middleware.transport import HttpTransport
from grip_edge_middleware.types import ASGIApp, Receive, Scope, Send
from tests.recording import DEADLINE_S, Answer, RecordingServer, bodies


def failure(renderer: Renderer, path: str = "/") -> DeliveryError:
    with pytest.raises(DeliveryError) as failed:
        renderer.render(path, None)
    return failed.value


# --- WSGI -------------------------------------------------------------------------------------


def wsgi(*chunks: bytes, status: str = "200 OK") -> WSGIRenderer:
    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, [("Content-Type", "text/plain")])
        return iter(chunks)

    return WSGIRenderer(app)


def test_a_wsgi_app_is_rendered() -> None:
    answer = wsgi(b"one ", b"", b"two").render("/", None)

    assert (answer.status, answer.body) == (200, b"one two")
    assert answer.headers["content-type"] == "text/plain"


def test_the_environ_is_what_wsgi_demands() -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: Any, start_response: Any) -> Any:
        seen.append(dict(environ))
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"body"]

    renderer = WSGIRenderer(validator(app), origin="https://shop.example:8443")
    renderer.render("/blüe/a b/", "text/event-stream")

    [environ] = seen
    assert environ["PATH_INFO"].encode("latin-1").decode() == "/blüe/a b/"
    assert environ["HTTP_ACCEPT"] == "text/event-stream"
    assert (environ["HTTP_HOST"], environ["SERVER_PORT"]) == ("shop.example:8443", "8443")
    assert not {"HTTP_COOKIE", "HTTP_AUTHORIZATION"} & environ.keys()


def test_a_body_of_no_coding_is_asked_for_and_no_other_taken() -> None:
    asked: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        asked.append(environ["HTTP_ACCEPT_ENCODING"])
        start_response("200 OK", [("Content-Encoding", "gzip")])
        return [b"\x1f\x8b"]

    error = failure(WSGIRenderer(app))

    assert asked == ["identity"]
    assert "answered in gzip, which was not accepted" in str(error)
    assert error.is_final


def test_the_body_of_a_wsgi_app_is_closed() -> None:
    closed = threading.Event()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x" * 10
            raise ZeroDivisionError

        def close(self) -> None:
            closed.set()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Body()

    assert "ZeroDivisionError" in str(failure(WSGIRenderer(app)))
    assert closed.is_set()


def test_a_response_that_is_started_late_is_rendered() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("404 Not Found", [])
        yield b"gone"

    assert WSGIRenderer(app).render("/", None).status == 404


def test_what_an_app_writes_is_part_of_its_body() -> None:
    """PEP 3333: `write` comes before what is returned."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"written ")
        return [b"returned"]

    assert WSGIRenderer(app).render("/", None).body == b"written returned"


def test_an_error_page_replaces_what_was_started() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Oops", [], sys.exc_info())
        return [b"error"]

    assert WSGIRenderer(app).render("/", None).status == 500


def test_an_app_that_raises_is_an_error_that_may_pass() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        raise LookupError("no table")

    error = failure(WSGIRenderer(app), "/x/")
    assert "GET /x/" in str(error)
    assert "LookupError: no table" in str(error)
    assert not error.is_final


def test_an_app_that_starts_nothing_is_an_error() -> None:
    assert "started no response" in str(failure(WSGIRenderer(lambda environ, start: [])))


@pytest.mark.parametrize("status", ["OK", "", "2"])
def test_a_status_that_is_none_is_an_error(status: str) -> None:
    failure(wsgi(b"", status=status))


def test_a_body_that_is_too_large_is_final() -> None:
    assert wsgi(b"x" * MAX_BODY_BYTES).render("/", None).status == 200
    assert failure(wsgi(b"x" * MAX_BODY_BYTES, b"x")).is_final


def test_a_body_that_never_ends_is_final() -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        return itertools.repeat(b"tick\n")

    assert failure(WSGIRenderer(app)).is_final


def test_a_body_of_nothing_that_never_ends_is_given_up() -> None:
    """As frameworks yield between events. It would hold up all delivery of the process."""
    released, given_up = threading.Event(), threading.Event()

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        while not released.wait(0.01):
            yield b""

    def render() -> None:
        with contextlib.suppress(DeliveryError):
            WSGIRenderer(app).render("/", None)
        if not released.is_set():
            given_up.set()

    thread = threading.Thread(target=render, daemon=True)
    thread.start()
    try:
        assert given_up.wait(7)
    finally:
        released.set()
        thread.join()


def test_a_wsgi_app_is_rendered_below_its_mount_point_for_a_stranger(
    server: RecordingServer,
) -> None:
    """The mount point is known from a request. An app may trust addresses of its own machine."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"{environ['SCRIPT_NAME']} {environ['REMOTE_ADDR']}".encode()]

    topics = {"counters": {"routes": ["/counters/"], "hold": "stream", "recovery": None}}
    with closing(GripEdge(settings={"grip_url": server.url, "topics": topics})) as edge:
        request = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/api", "PATH_INFO": "/counters/"}
        edge.wsgi(app)({**request, "REMOTE_ADDR": "127.0.0.1"}, lambda *_: lambda _: None)
        edge.submit("counters")

        assert edge.flush(DEADLINE_S)
    assert bodies(server.items, "counters") == ["/api 192.0.2.1"]


# --- ASGI -------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(
    app: ASGIApp, /, *, timeout_s: float = 5.0, **scope: Any
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Render from a thread, as the dispatcher does, while this loop serves the app."""
    renderer = ASGIRenderer(app, timeout_s=timeout_s)
    renderer.attach({"type": "lifespan", **scope})

    async def render(path: str = "/") -> Any:
        return await asyncio.to_thread(renderer.render, path, None)

    yield render


def asgi(*messages: dict[str, Any]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"a/b")]}


def test_an_asgi_app_is_rendered_on_its_own_loop() -> None:
    threads: list[threading.Thread] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        threads.append(threading.current_thread())
        await asyncio.sleep(0)
        await send(START)
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    async def main() -> None:
        async with serving(app) as render:
            answer = await render()
        assert (answer.status, answer.body) == (200, b"one two")
        assert answer.headers == {"content-type": "a/b"}

    asyncio.run(main())
    assert threads == [threading.current_thread()]


def test_headers_may_be_left_out() -> None:
    """https://asgi.readthedocs.io/en/latest/specs/www.html: "Optional; if missing defaults to an
    empty list"."""

    async def main() -> None:
        start = {"type": "http.response.start", "status": 200}
        async with serving(asgi(start, {"type": "http.response.body"})) as render:
            assert (await render()).status == 200

    asyncio.run(main())


def rendering_error(app: ASGIApp, *, timeout_s: float = 5.0) -> DeliveryError:
    async def main() -> DeliveryError:
        async with serving(app, timeout_s=timeout_s) as render:
            with pytest.raises(DeliveryError) as failed:
                await render()
            return failed.value

    return asyncio.run(main())


def test_an_asgi_app_that_raises_is_an_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no table")

    assert "LookupError: no table" in str(rendering_error(app))


def test_an_asgi_app_that_is_cancelled_is_an_error() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    rendering_error(app)


def test_an_asgi_app_that_starts_nothing_is_an_error() -> None:
    assert "started no response" in str(rendering_error(asgi()))


def test_an_asgi_app_that_hangs_is_given_up_and_cancelled() -> None:
    cancelled = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    assert "not within 0.05 s" in str(rendering_error(app, timeout_s=0.05))
    assert cancelled.wait(DEADLINE_S)


def test_an_app_that_waits_for_the_client_to_go_is_given_up() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    assert "not within" in str(rendering_error(app, timeout_s=0.05))


def test_an_endless_stream_of_starlette_is_final() -> None:
    async def ticks(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            while True:
                yield b"tick\n" * 10_000
                await asyncio.sleep(0)

        return StreamingResponse(body())

    assert rendering_error(Starlette(routes=[Route("/", ticks)])).is_final


def test_without_a_loop_there_is_an_error() -> None:
    assert "origin" in str(failure(ASGIRenderer(asgi(START), timeout_s=1.0)))


def test_after_the_loop_has_ended_there_is_an_error() -> None:
    renderer = ASGIRenderer(asgi(START), timeout_s=1.0)

    async def main() -> None:
        renderer.attach({"type": "lifespan"})

    asyncio.run(main())

    assert not renderer.is_attached
    assert "origin" in str(failure(renderer))


def test_starlette_finds_its_app_and_the_state_of_its_lifespan() -> None:
    async def view(request: Request) -> JSONResponse:
        return JSONResponse({"db": request.state.db, "name": request.app.state.name})

    app = Starlette(routes=[Route("/", view)])
    app.state.name = "shop"

    async def main() -> None:
        async with serving(app.router, app=app, state={"db": "open"}) as render:
            answer = await render()
        assert answer.body == b'{"db":"open","name":"shop"}'

    asyncio.run(main())


def test_an_asgi_app_is_rendered_for_a_stranger() -> None:
    async def view(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.client.host if request.client else "")

    async def main() -> None:
        async with serving(Starlette(routes=[Route("/", view)])) as render:
            assert (await render()).body == b"192.0.2.1"

    asyncio.run(main())


def test_what_one_rendering_puts_into_the_state_is_not_in_the_next() -> None:
    async def view(request: Request) -> PlainTextResponse:
        was_there = hasattr(request.state, "mark")
        request.state.mark = True
        return PlainTextResponse(str(was_there))

    async def main() -> None:
        async with serving(Starlette(routes=[Route("/", view)]), state={}) as render:
            assert [(await render()).body for _ in range(2)] == [b"False", b"False"]

    asyncio.run(main())


def test_what_a_client_put_into_the_state_is_not_shown_to_a_stranger() -> None:
    """A middleware that logs in sets request.state.user, on a dict that is the request's own."""

    async def view(request: Request) -> PlainTextResponse:
        if "cookie" in request.headers:
            request.state.user = "alice"
        return PlainTextResponse(getattr(request.state, "user", "a stranger"))

    app = Starlette(routes=[Route("/", view)])
    renderer = ASGIRenderer(app, timeout_s=5.0)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        """To alice."""

    async def main() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "query_string": b"",
            "headers": [(b"cookie", b"session=alice")],
            "state": {},
        }
        renderer.attach(scope)
        await app(scope, receive, send)
        answer = await asyncio.to_thread(renderer.render, "/", None)
        assert answer.body == b"a stranger"

    asyncio.run(main())


def test_a_mounted_app_is_rendered_below_its_mount_point() -> None:
    async def view(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.url.path} {request.url_for('view')}")

    inner = Starlette(routes=[Route("/counters/", view, name="view")])
    Starlette(routes=[Mount("/api", inner)])

    async def main() -> None:
        async with serving(inner, root_path="/api") as render:
            answer = await render("/counters/")
        assert answer.body == b"/api/counters/ http://localhost/api/counters/"

    asyncio.run(main())


# --- origin -----------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def origin(server: RecordingServer) -> Iterator[OriginRenderer]:
    with closing(HttpTransport(timeout_s=0.5)) as transport:
        yield OriginRenderer(server.url, transport)


def test_the_origin_is_asked(server: RecordingServer, origin: OriginRenderer) -> None:
    server.respond = lambda _: Answer(404, {"Content-Type": "text/plain"}, b"none")

    answer = origin.render("/a b/ü/%41/", "text/event-stream")

    [request] = server.requests
    assert (request.method, request.path) == ("GET", "/a%20b/%C3%BC/%2541/")
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["accept-encoding"] == "identity"
    assert (answer.status, answer.headers["content-type"], answer.body) == (
        404,
        "text/plain",
        b"none",
    )


@pytest.mark.parametrize(
    "answer",
    [
        Answer(hangs=True),
        Answer(closes=True),
        Answer(body=b"x" * (MAX_BODY_BYTES + 1)),
        Answer(raw=b"HTTP/1.1 200 OK\r\n\r\n", drips=b"tick\n"),
    ],
    ids=["hangs", "closes", "too large", "never ends"],
)
def test_an_origin_that_does_not_answer_is_an_error(
    server: RecordingServer, origin: OriginRenderer, answer: Answer
) -> None:
    server.respond = lambda _: answer
    began = time.monotonic()

    failure(origin)

    assert time.monotonic() - began < DEADLINE_S / 2
