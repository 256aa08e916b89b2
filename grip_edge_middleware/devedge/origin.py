"""Where the answers come from: an app in this process, or one at a URL."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

import httpcore2
from a2wsgi import WSGIMiddleware

from grip_edge_middleware.devedge.exchange import (
    HOP_BY_HOP,
    Answer,
    Asked,
    Fetch,
    OriginFailed,
    plain,
)
from grip_edge_middleware.types import ASGIApp, Message, Scope, WSGIApplication

logger = logging.getLogger(__name__)

# As in examples/edge/default.vcl: a client that waits for a dead app waits this long.
CONNECT_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 60.0
WSGI_THREADS = 32


class Origin(Fetch, Protocol):
    """The app, wherever it is."""

    async def aclose(self) -> None:
        """Let go of connections."""


def origin_of(app: ASGIApp | WSGIApplication | str) -> Origin:
    """Return what asks a WSGI app, an ASGI app, or the app at a URL."""
    if isinstance(app, str):
        return UrlOrigin(app)
    return AppOrigin(app if is_asgi(app) else as_asgi(app))  # type: ignore[arg-type]


def is_asgi(app: object) -> bool:
    """Whether an app is one of ASGI's: what is called is a coroutine function."""
    call = app if inspect.isroutine(app) else type(app).__call__
    return inspect.iscoroutinefunction(call)


def as_asgi(app: WSGIApplication) -> ASGIApp:
    """Return a WSGI app as one of ASGI's, on threads."""
    return cast(ASGIApp, WSGIMiddleware(app, workers=WSGI_THREADS))  # type: ignore[arg-type]


class AppOrigin:
    """Asks an ASGI app in this process, as a server would."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        """What the app left for its requests when it started: ASGI's lifespan state."""
        self._calls: set[asyncio.Task[None]] = set()

    async def __call__(self, asked: Asked, /) -> Answer:
        """Answer once the app has sent its headers; the body is on its way then."""
        call = AppCall(asked)
        # It goes on when nobody listens any more, as under a server.
        running = asyncio.create_task(call.run(self.app, scope_of(asked, self.state)))
        self._calls.add(running)
        running.add_done_callback(self._calls.discard)
        try:
            return await call.answer
        except asyncio.CancelledError:
            call.hang_up()
            raise

    async def aclose(self) -> None:
        """Nothing to let go of: the app ends by its lifespan."""


class AppCall:
    """One call of an app: its answer is passed on while it is made."""

    def __init__(self, asked: Asked) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._request: Message | None = {"type": "http.request", "body": asked.body}
        # Short: an app that makes more than is read waits.
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(4)
        self._is_whole = False
        self._gone = asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Call the app."""
        try:
            await app(scope, self._receive, self._send)
        except Exception:
            logger.exception("the app failed: %s %s", scope["method"], scope["path"])
        if not self.answer.done():
            self.answer.set_result(plain(500, "Internal Server Error"))
        await self._put(None)

    def hang_up(self) -> None:
        """Tell the app that nobody listens."""
        self._gone.set()
        while not self._pieces.empty():
            self._pieces.get_nowait()

    async def _receive(self) -> Message:
        request, self._request = self._request, None
        if request is not None:
            return request
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self.answer.done():
            lines = message.get("headers", ())
            headers = [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in lines]
            self.answer.set_result(Answer(message["status"], headers, self._body()))
        elif message["type"] == "http.response.body":
            if piece := message.get("body", b""):
                await self._put(bytes(piece))
            if not message.get("more_body", False):
                self._is_whole = True
                await self._put(None)

    async def _put(self, piece: bytes | None) -> None:
        if not self._gone.is_set():
            await self._pieces.put(piece)

    async def _body(self) -> AsyncGenerator[bytes, None]:
        try:
            while (piece := await self._pieces.get()) is not None:
                yield piece
            if not self._is_whole:
                raise OriginFailed("it broke off")
        finally:
            self.hang_up()


def scope_of(asked: Asked, state: dict[str, Any]) -> Scope:
    """Return the request as an ASGI server tells it to an app."""
    path, _, query = asked.target.partition("?")
    host, _, port = asked.says("host").partition(":")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": asked.method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": lines_of(asked),
        "client": (asked.client, 0),
        "server": (host or "localhost", int(port) if port.isdecimal() else 80),
        "state": dict(state),
    }


def lines_of(asked: Asked) -> list[tuple[bytes, bytes]]:
    """Return the headers as bytes; the body is whole, and its length known."""
    if asked.body or asked.method in ("POST", "PUT", "PATCH"):
        asked = asked.saying(("content-length", str(len(asked.body))))
    headers = asked.without({"expect"}).headers
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


class UrlOrigin:
    """Asks the app at a URL such as `http://127.0.0.1:8000`. What it says is passed on as it is."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected http://host:port, got {url!r}")
        self._scheme, self._host = parts.scheme.encode(), parts.hostname.encode()
        self._port = parts.port
        self._pool = httpcore2.AsyncConnectionPool(max_connections=None, keepalive_expiry=5.0)

    async def __call__(self, asked: Asked, /) -> Answer:
        """Answer once the headers have arrived; the body is on its way then."""
        request = self._request(asked)
        try:
            response = await self._pool.handle_async_request(request)
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as e:
            raise OriginFailed(str(e) or type(e).__name__) from e
        lines = ((n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in response.headers)
        headers = [(name, value) for name, value in lines if name not in HOP_BY_HOP]
        return Answer(response.status, headers, self._body(response))

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._pool.aclose()

    def _request(self, asked: Asked) -> httpcore2.Request:
        url = httpcore2.URL(
            scheme=self._scheme, host=self._host, port=self._port, target=asked.target.encode()
        )
        return httpcore2.Request(
            asked.method,
            url,
            headers=lines_of(asked),
            content=asked.body,
            extensions={"timeout": {"connect": CONNECT_TIMEOUT_S, "read": READ_TIMEOUT_S}},
        )

    async def _body(self, response: httpcore2.Response) -> AsyncGenerator[bytes, None]:
        try:
            async for piece in response.aiter_stream():
                yield piece
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as e:
            raise OriginFailed(str(e) or type(e).__name__) from e
        finally:
            await response.aclose()
