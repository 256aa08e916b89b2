"""WebSockets of a Starlette app, in its own words: sessions, dependencies, other middleware."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Annotated, Any
from urllib.request import urlopen

import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import PlainTextResponse
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from websocket import WebSocket, WebSocketBadStatusException, create_connection

from grip_edge_middleware import GripEdge, GripEdgeMiddleware
from grip_edge_middleware.devedge import VERIFY_KEY, DevEdge
from tests.rooms import SECRET

DEADLINE_S = 10.0
SETTINGS: dict[str, Any] = {
    "grip_url": f"http://127.0.0.1:9?verify-key={VERIFY_KEY}",
    "secret": SECRET,
    "flush_timeout": 0,
}
closed: queue.Queue[tuple[str, int | None]] = queue.Queue()


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response


def who(request: Request) -> str:
    return str(request.session.get("user", "nobody"))


async def left(socket: Any) -> None:
    closed.put((socket.meta["user"], socket.close_code))


def fastapi(edge: GripEdge) -> FastAPI:
    app = FastAPI(
        middleware=[
            Middleware(GripEdgeMiddleware, edge=edge),
            Middleware(GZipMiddleware, minimum_size=1),
            Middleware(Passing),
            Middleware(SessionMiddleware, secret_key="of the session's cookie"),
        ]
    )

    @app.get("/login")
    async def login(request: Request) -> PlainTextResponse:
        request.session["user"] = "ann"
        return PlainTextResponse("in")

    @app.get("/rooms/{name}")
    async def room(name: str, user: Annotated[str, Depends(who)]) -> PlainTextResponse:
        if user == "nobody":
            return PlainTextResponse("log in first", 401)
        if edge.socket:
            edge.socket.meta["user"] = user
        return PlainTextResponse(f"{name} for {user}" + "." * 100)

    @app.post("/rooms/{name}")
    async def hear(name: str, request: Request, user: Annotated[str, Depends(who)]) -> Response:
        return PlainTextResponse(f"{user}: {(await request.body()).decode()}")

    return app


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    routes = [{"path": "/rooms/{name}", "on_close": left}]
    topics = {"room-{name}": {"routes": routes, "hold": "ws", "receive": True}}
    with closing(GripEdge(settings={**SETTINGS, "topics": topics}, environ={})) as edge:
        dev_edge = DevEdge(fastapi(edge))
        with dev_edge.running() as running:
            yield f"ws://127.0.0.1:{running.ports['clients']}", running.url("clients")


@contextmanager
def connected(url: str, **options: Any) -> Iterator[WebSocket]:
    socket = create_connection(url, timeout=DEADLINE_S, **options)
    try:
        yield socket
    finally:
        socket.close(4000)
        socket.shutdown()  # type: ignore[no-untyped-call]


def cookie(url: str) -> str:
    with urlopen(f"{url}/login", timeout=DEADLINE_S) as answer:
        found: str = answer.headers["Set-Cookie"].partition(";")[0]
    return found


def test_a_view_knows_its_user_and_answers_as_ever() -> None:
    with served() as (sockets, pages):
        with pytest.raises(WebSocketBadStatusException) as refused:
            create_connection(f"{sockets}/rooms/blue", timeout=DEADLINE_S)
        session = {"header": ["Accept-Encoding: gzip"], "cookie": cookie(pages)}
        with connected(f"{sockets}/rooms/blue", **session) as socket:
            first = socket.recv()
            socket.send("hello")
            second = socket.recv()
        gone = closed.get(timeout=DEADLINE_S)

    assert (refused.value.status_code, refused.value.resp_body) == (401, b"log in first")
    assert (first, second) == ("blue for ann" + "." * 100, "ann: hello")
    assert gone == ("ann", 4000)
