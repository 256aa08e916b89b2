"""What the middleware adds to a request, in process: no server, no sockets.

The bare app answers one small event. With the edge, the same app is asked for a path that is no
route, for a static one and for one with a parameter, and its answer gets all its headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from itertools import product
from statistics import median
from typing import Any, cast
from wsgiref.util import setup_testing_defaults

from flask import Flask, Response
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

from benchmarks import callgrind
from benchmarks.measure import Effort, Turns, Work, in_turns
from benchmarks.results import Curve, Found, Result, Target, at_most, at_most_times, result
from grip_edge_middleware import GripEdge
from grip_edge_middleware.types import ASGIApp, Message, Receive, Scope, Send, WSGIApplication

SETTINGS: dict[str, Any] = {
    "cdn": "varnish://127.0.0.1:6081",
    "grip_url": "http://127.0.0.1:5561",
    "topics": {
        "counters": {"routes": ["/counters/"], "hold": "stream"},
        "counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"},
    },
}
UNMATCHED, STATIC, PARAMETRISED = "/about/", "/counters/", "/counters/blue/"
PATHS = {"unmatched": UNMATCHED, "static": STATIC, "parametrised": PARAMETRISED}
REQUESTS = 20
KEYS = (1, 10, 50, 100, 200)
BODY = b"event: message\ndata: 1\n\n"
# What a browser behind two proxies sends.
REQUEST_HEADERS = {
    "host": "www.example.com",
    "accept": "text/event-stream",
    "accept-encoding": "gzip, deflate, br",
    "accept-language": "en-GB,en;q=0.5",
    "cache-control": "no-cache",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "via": "1.1 varnish",
    "x-forwarded-for": "192.0.2.7, 198.51.100.1",
}


def wsgi(effort: Effort) -> Iterator[Result]:
    """What the WSGI face adds to an app that does nothing."""
    turns = in_turns(wsgi_works(), effort)
    yield _added("WSGI", turns, "unmatched", at_most(0.3))
    yield _added("WSGI", turns, "static", at_most(2.5))
    yield _added("WSGI", turns, "parametrised", at_most(2.5))


def asgi(effort: Effort) -> Iterator[Result]:
    """What the ASGI face adds to an app that does nothing."""
    turns = in_turns(asgi_works(), effort)
    yield _added("ASGI", turns, "unmatched", at_most(0.3))
    yield _added("ASGI", turns, "static", at_most(3.0))
    yield _added("ASGI", turns, "parametrised", at_most(3.0))


def frameworks(effort: Effort) -> Iterator[Result]:
    """What becomes of a whole request to Flask and to Starlette."""
    turns = in_turns(flask_works(), effort)
    yield _whole("Flask", turns, "unmatched", None)
    yield _whole("Flask", turns, "static", at_most_times(1.08))
    yield _whole("Flask", turns, "parametrised", at_most_times(1.08))
    turns = in_turns(starlette_works(), effort)
    yield _whole("Starlette", turns, "unmatched", None)
    yield _whole("Starlette", turns, "static", at_most_times(1.4))
    yield _whole("Starlette", turns, "parametrised", at_most_times(1.4))
    turns = in_turns(starlette_works_on_a_loop(), effort)
    yield result(
        "Starlette on an event loop, parametrised: added",
        [us / REQUESTS for us in turns.added("with us", "bare")],
        "µs",
        base="BaseHTTPMiddleware with three headers",
        base_values=[us / REQUESTS for us in turns.added("peer", "bare")],
    )


def instructions(effort: Effort) -> Iterator[Result]:
    """How many instructions a request takes in all."""
    found = callgrind.count_instructions("benchmarks.faces", "works_of_instructions")
    limits = {"WSGI unmatched": 2.0, "ASGI unmatched": 1.35}
    for kind, path in product(("WSGI", "ASGI"), PATHS):
        limit = limits.get(f"{kind} {path}")
        yield result(
            f"{kind}, {path}: in all",
            [found[f"{kind}, {path}, with us"]],
            "instructions",
            base="bare app",
            base_values=[found[f"{kind}, {path}, bare"]],
            target=None if limit is None else at_most_times(limit),
        )


def works_of_instructions() -> dict[str, Work]:
    """Return what `instructions` counts."""
    kinds = {"WSGI": wsgi_works(), "ASGI": asgi_works()}
    return {f"{k}, {name}": work for k, works in kinds.items() for name, work in works.items()}


def _added(kind: str, turns: Turns, path: str, target: Target) -> Result:
    return result(
        f"{kind}, {path}: added",
        turns.added(f"{path}, with us", f"{path}, bare"),
        "µs",
        base="bare app",
        base_values=turns.of[f"{path}, bare"],
        ratio=turns.ratio(f"{path}, with us", f"{path}, bare"),
        target=target,
    )


def _whole(kind: str, turns: Turns, path: str, target: Target | None) -> Result:
    return result(
        f"{kind}, {path}: whole request",
        turns.of[f"{path}, with us"],
        "µs",
        base=f"{kind} alone",
        base_values=turns.of[f"{path}, bare"],
        ratio=turns.ratio(f"{path}, with us", f"{path}, bare"),
        target=target,
    )


def keys(effort: Effort) -> Iterator[Found]:
    """What further keys of a response cost: a view tags it with so many."""
    points = []
    for number in KEYS:
        turns = in_turns(tagged_works(number), effort)
        added = turns.added("tagged", "bare")
        points.append((float(number), median(added)))
        yield result(f"a response of {number} further keys: added", added, "µs")
    yield Curve.of("a matched request", "keys", "µs", points)


def tagged_works(number: int) -> dict[str, Work]:
    """Return requests to a view that adds so many keys, by its app alone and with us."""
    edge = GripEdge(settings=SETTINGS)
    names = [f"key-{n}" for n in range(number)]

    def tagged(environ: Any, start_response: Any) -> list[bytes]:
        edge.tag(*names)
        return bare_wsgi(environ, start_response)

    wrapped = edge.wsgi(tagged)
    check_wsgi(wrapped)
    return {"bare": call_wsgi(bare_wsgi, STATIC), "tagged": call_wsgi(wrapped, STATIC)}


# --- WSGI ---------------------------------------------------------------------------------------


def wsgi_works() -> dict[str, Work]:
    """Return a request of each kind, to the bare app and to the wrapped one."""
    return _of_wsgi(bare_wsgi, GripEdge(settings=SETTINGS).wsgi(bare_wsgi))


def flask_works() -> dict[str, Work]:
    """Return the same of a Flask app."""
    wrapped = flask_app()
    GripEdge(wrapped, settings=SETTINGS)
    return _of_wsgi(flask_app().wsgi_app, wrapped.wsgi_app)


def _of_wsgi(bare: WSGIApplication, wrapped: WSGIApplication) -> dict[str, Work]:
    check_wsgi(wrapped)
    apps = {"bare": bare, "with us": wrapped}
    return {f"{p}, {a}": call_wsgi(apps[a], PATHS[p]) for p in PATHS for a in apps}


def bare_wsgi(environ: Any, start_response: Any) -> list[bytes]:
    """Answer one event."""
    start_response(
        "200 OK", [("Content-Type", "text/event-stream"), ("Content-Length", str(len(BODY)))]
    )
    return [BODY]


def flask_app() -> Flask:
    """Return a small app, with the routes of `PATHS`."""
    app = Flask(__name__)

    def show(name: str = "") -> Response:
        return Response(BODY, mimetype="text/event-stream")

    for path in (UNMATCHED, STATIC, "/counters/<name>/"):
        app.add_url_rule(path, path, show)
    return app


def call_wsgi(app: WSGIApplication, path: str, **more: str) -> Work:
    """Return a request, as a server would make it."""
    made = environ_of(path, **more)

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        pass

    def call() -> None:
        body = app(made.copy(), start_response)
        for _ in body:
            pass
        if (close := getattr(body, "close", None)) is not None:
            close()

    return call


def environ_of(path: str, **more: str) -> dict[str, Any]:
    """Return the environ of a GET, with further headers under their names in it."""
    environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": "", "REMOTE_ADDR": "192.0.2.1"}
    for name, value in REQUEST_HEADERS.items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    environ |= more
    setup_testing_defaults(environ)
    return environ


def check_wsgi(app: WSGIApplication) -> None:
    """Make sure that what is measured has its headers."""
    for path in PATHS.values():
        said: list[str] = []

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            said.extend(name.lower() for name, _ in headers)  # noqa: B023

        list(app(environ_of(path), start_response))
        is_matched = path != UNMATCHED
        assert ("surrogate-key" in said) == ("grip-hold" in said) == is_matched, (path, said)


# --- ASGI ---------------------------------------------------------------------------------------


def asgi_works() -> dict[str, Work]:
    """Return a request of each kind, to the bare app and to the wrapped one."""
    return _of_asgi(bare_asgi, GripEdge(settings=SETTINGS).asgi(bare_asgi))


def starlette_works() -> dict[str, Work]:
    """Return the same of a Starlette app."""
    return _of_asgi(starlette_app(), GripEdge(settings=SETTINGS).asgi(starlette_app()))


def starlette_works_on_a_loop() -> dict[str, Work]:
    """Return some requests in turn: to the bare app, with us, and with its usual middleware."""
    peer = starlette_app()
    peer.add_middleware(BaseHTTPMiddleware, dispatch=_three_headers)
    wrapped = GripEdge(settings=SETTINGS).asgi(starlette_app())
    apps: dict[str, ASGIApp] = {"bare": starlette_app(), "with us": wrapped, "peer": peer}
    loop = asyncio.new_event_loop()
    return {name: partial(_ask_on, loop, app) for name, app in apps.items()}


def _ask_on(loop: asyncio.AbstractEventLoop, app: ASGIApp) -> None:
    loop.run_until_complete(_ask_in_turn(app))


async def _ask_in_turn(app: ASGIApp) -> None:
    for _ in range(REQUESTS):
        await app(scope_of(PARAMETRISED), receive, send)


def _of_asgi(bare: ASGIApp, wrapped: ASGIApp) -> dict[str, Work]:
    check_asgi(wrapped)
    apps = {"bare": bare, "with us": wrapped}
    return {f"{p}, {a}": call_asgi(apps[a], PATHS[p]) for p in PATHS for a in apps}


async def bare_asgi(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one event."""
    headers = [
        (b"content-type", b"text/event-stream"),
        (b"content-length", str(len(BODY)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def starlette_app() -> Starlette:
    """Return a small app, with the routes of `PATHS`."""

    async def show(request: Request) -> StarletteResponse:
        return StarletteResponse(BODY, media_type="text/event-stream")

    paths = (UNMATCHED, STATIC, "/counters/{name}/")
    return Starlette(routes=[Route(path, show) for path in paths])


async def _three_headers(
    request: Request, call_next: Callable[[Request], Any]
) -> StarletteResponse:
    response: StarletteResponse = await call_next(request)
    response.headers["Surrogate-Key"] = "counter-blue"
    response.headers["Grip-Hold"] = "stream"
    response.headers["Grip-Channel"] = "counter-blue"
    return response


def call_asgi(app: ASGIApp, path: str) -> Work:
    """Return a request, as a server would make it."""
    made = scope_of(path)

    return lambda: drive(app(made.copy(), receive, send))


async def receive() -> Message:
    """Be a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Message) -> None:
    """Take what is sent."""


def scope_of(path: str) -> dict[str, Any]:
    """Return the scope of a GET."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in REQUEST_HEADERS.items()],
        "client": ("192.0.2.1", 50_000),
        "server": ("127.0.0.1", 8000),
    }


def drive(call: Awaitable[None]) -> None:
    """Run a call that waits for nothing, without an event loop."""
    with suppress(StopIteration):
        cast(Coroutine[Any, Any, None], call).send(None)


def check_asgi(app: ASGIApp) -> None:
    """Make sure that what is measured has its headers."""
    for path in PATHS.values():
        said: list[bytes] = []

        async def note(message: Message) -> None:
            said.extend(name for name, _ in message.get("headers", ()))  # noqa: B023

        drive(app(scope_of(path), receive, note))
        is_matched = path != UNMATCHED
        assert (b"surrogate-key" in said) == (b"grip-hold" in said) == is_matched, (path, said)
