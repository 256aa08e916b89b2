"""The response is the message: asks the app for what a route answers now.

In-process through the wrapped app itself, or by a GET to the `origin` where there is no app. Only
ever a GET without cookies or credentials, as a stranger would send it.
"""

from __future__ import annotations

import asyncio
import io
import math
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.transport import Transport
from grip_edge_middleware.types import (
    ASGIApp,
    Headers,
    Message,
    Receive,
    Scope,
    WSGIApplication,
    WSGIEnvironment,
)

# Pushpin takes no publish of more than 1,000,000 bytes.
MAX_BODY_BYTES = 800_000

TARGET = "render"
USER_AGENT = "grip-edge-middleware"
# What is pushed continues bodies of all codings. To say nothing would be to take any:
# https://www.rfc-editor.org/rfc/rfc9110#section-12.5.3
CODING = "identity"
# An address of nobody (RFC 5737): an app may trust those of its own machine.
STRANGER = "192.0.2.1"

_rendering: ContextVar[Rendering | None] = ContextVar("grip_edge_rendering", default=None)


@dataclass(slots=True)
class Rendering:
    """That it is the edge who asks. Tasks that the view starts share it, and it ends for them."""

    is_private: bool


def is_rendering() -> bool:
    """Whether the running view is that of a private topic, and asked by the edge itself."""
    rendering = _rendering.get()
    return rendering is not None and rendering.is_private


class Renderer(Protocol):
    """Answers what a stranger's GET of a path would be answered."""

    def render(self, path: str, accept: str | None, *, is_private: bool = False) -> Response:
        """Return the response to a decoded path; DeliveryError if there is none.

        The view of a private topic is told by `is_rendering` that it is the edge who asks.
        """


class WSGIRenderer:
    """Calls a WSGI app on the calling thread. `timeout_s` limits a body that keeps coming."""

    def __init__(
        self, app: WSGIApplication, *, timeout_s: float = 5.0, origin: str | None = None
    ) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self._origin = urlsplit(origin or "http://localhost")
        self._mount = ""

    def attach(self, environ: WSGIEnvironment) -> None:
        """Remember where the app is mounted."""
        self._mount = environ.get("SCRIPT_NAME", "")

    def render(self, path: str, accept: str | None, *, is_private: bool = False) -> Response:
        """Return the app's response to a GET."""
        try:
            with _as_edge(is_private):
                environ = self._environ(path, accept)
                return _response(*self.call(environ, timeout_s=self._timeout_s))
        except DeliveryError:
            raise
        except BaseException as error:  # not even SystemExit may end the dispatcher's thread
            raise _raised(path, error) from error

    def call(
        self, environ: WSGIEnvironment, *, timeout_s: float = math.inf
    ) -> tuple[int, Headers, bytes]:
        """Return the app's response to any request; DeliveryError if there is none."""
        asked = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        started: list[tuple[str, Headers]] = []
        body = bytearray()

        def start_response(status: str, headers: Headers, exc_info: Any = None) -> Any:
            started[:] = [(status, headers)]
            return body.extend

        deadline = time.monotonic() + timeout_s
        _read(self._app(environ, start_response), body, deadline)
        if not started:
            raise DeliveryError(TARGET, f"{asked}: the app started no response")
        status, headers = started[0]
        if not status[:3].isdigit() or len(status) < 3:
            raise DeliveryError(TARGET, f"{asked}: {status!r} is no status")
        return int(status[:3]), headers, bytes(body)

    def _environ(self, path: str, accept: str | None) -> dict[str, Any]:
        return {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": self._mount,
            "PATH_INFO": path.encode("utf-8", "surrogatepass").decode("latin-1"),
            "QUERY_STRING": "",
            "SERVER_NAME": self._origin.hostname or "localhost",
            "SERVER_PORT": str(self._origin.port or _default_port(self._origin.scheme)),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": self._origin.netloc,
            "HTTP_ACCEPT": accept or "*/*",
            "HTTP_ACCEPT_ENCODING": CODING,
            "HTTP_USER_AGENT": USER_AGENT,
            "REMOTE_ADDR": STRANGER,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": self._origin.scheme,
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }


class ASGIRenderer:
    """Calls an ASGI app on the event loop that serves it, from the dispatcher's thread.

    The loop is known from the app's lifespan or from its first request.
    """

    def __init__(self, app: ASGIApp, *, timeout_s: float, origin: str | None = None) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self._origin = urlsplit(origin or "http://localhost")
        self._loop: asyncio.AbstractEventLoop | None = None
        # Starlette finds itself in "app".
        self._attached_by: tuple[Any, str] = (None, "")
        self._state: Scope = {}

    def attach(self, scope: Scope) -> None:
        """Remember the running loop, and what an app keeps in the scope for all requests.

        Of a request's own state nothing is kept: it may hold who is logged in.
        """
        try:  # noqa: SIM105 - each request does this, and `suppress` costs it more
            self._loop = asyncio.get_running_loop()
        except RuntimeError:  # trio runs no loop of asyncio's
            pass
        self._attached_by = scope.get("app"), scope.get("root_path", "")
        if scope["type"] == "lifespan":
            # Filled while the app starts up, so the dict itself is kept.
            self._state = scope.get("state", {})

    @property
    def is_attached(self) -> bool:
        """Whether there is a loop to render on."""
        return self._loop is not None and self._loop.is_running()

    def render(self, path: str, accept: str | None, *, is_private: bool = False) -> Response:
        """Return the app's response to a GET. Never called on the loop's own thread."""
        loop = self._loop
        if loop is None or not loop.is_running():
            raise DeliveryError(TARGET, "the app's event loop is not running; set origin")
        rendering = asyncio.run_coroutine_threadsafe(
            self.respond(path, accept, is_private=is_private), loop
        )
        try:
            return rendering.result(self._timeout_s)
        except DeliveryError:
            raise
        except FutureTimeoutError:
            rendering.cancel()
            raise DeliveryError(TARGET, f"GET {path}: not within {self._timeout_s:g} s") from None
        except BaseException as error:
            raise _raised(path, error) from error

    async def respond(self, path: str, accept: str | None, *, is_private: bool = False) -> Response:
        """Return the app's response to a GET, on the loop that serves the app."""
        with _as_edge(is_private):
            async with self._time_limit():
                return _response(*await self.call(self._request_scope(path, accept)))

    async def call(
        self, scope: Scope, said: bytes = b"", then: Receive | None = None
    ) -> tuple[int, Headers, bytes]:
        """Return the app's response to any request; DeliveryError if there is none.

        `then` is what the app receives after the body.
        """
        start: Message = {}
        body = bytearray()
        messages = iter([{"type": "http.request", "body": said, "more_body": False}])

        async def receive() -> Message:
            for message in messages:
                return message
            if then is not None:
                return await then()
            # Nobody hangs up: an app that listens for that waits until it has answered.
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))
                _check_size(len(body))

        await self._app(scope, receive, send)
        if not start:
            asked = f"{scope['method']} {scope['path']}"
            raise DeliveryError(TARGET, f"{asked}: the app started no response")
        raw = start.get("headers", ())
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        return start["status"], headers, bytes(body)

    def _time_limit(self) -> AbstractAsyncContextManager[object]:
        # Trio has its own limits.
        return nullcontext() if self._loop is None else asyncio.timeout(self._timeout_s)

    def _request_scope(self, path: str, accept: str | None) -> Scope:
        app, root_path = self._attached_by
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": self._origin.scheme,
            "path": root_path + path,
            "raw_path": quote(root_path + path, errors="surrogatepass").encode(),
            "query_string": b"",
            "headers": [
                (b"host", self._origin.netloc.encode()),
                (b"accept", (accept or "*/*").encode()),
                (b"accept-encoding", CODING.encode()),
                (b"user-agent", USER_AGENT.encode()),
            ],
            "client": (STRANGER, 0),
            "server": (self._origin.hostname or "localhost", self._origin.port),
            "state": dict(self._state),
            "root_path": root_path,
            **({} if app is None else {"app": app}),
        }


class OriginRenderer:
    """Asks a running app over HTTP, for a process that has none."""

    def __init__(self, origin: str, transport: Transport) -> None:
        self._origin = origin
        self._transport = transport

    def render(self, path: str, accept: str | None, *, is_private: bool = False) -> Response:
        """Return what the origin answers. It cannot be told who asks, so nothing private."""
        if is_private:
            reason = "a private topic is rendered by its app only; wrap it here, or set a payload"
            raise DeliveryError(TARGET, reason, is_final=True)
        url = self._origin + quote(path, errors="surrogatepass")
        headers = {"Accept": accept or "*/*", "Accept-Encoding": CODING, "User-Agent": USER_AGENT}
        answer = self._transport.send(Request("GET", url, headers), max_bytes=MAX_BODY_BYTES)
        return _response(answer.status, list(answer.headers.items()), answer.body)


@contextmanager
def _as_edge(is_private: bool) -> Iterator[None]:
    """Tell a private view that it is us who ask, which no request from outside can say."""
    rendering = Rendering(is_private)
    token = _rendering.set(rendering)
    try:
        yield
    finally:
        rendering.is_private = False
        _rendering.reset(token)


def _read(chunks: Iterable[bytes], body: bytearray, deadline: float) -> None:
    try:
        for chunk in chunks:
            if time.monotonic() > deadline:
                raise DeliveryError(TARGET, "the body did not end in time; set a payload")
            body.extend(chunk)
            _check_size(len(body))
    finally:
        if (close := getattr(chunks, "close", None)) is not None:
            close()


def _check_size(size: int) -> None:
    if size > MAX_BODY_BYTES:
        reason = f"the body is larger than {MAX_BODY_BYTES} bytes, or never ends; set a payload"
        raise DeliveryError(TARGET, reason, is_final=True)


def _response(status: int, headers: Headers, body: bytes) -> Response:
    joined: dict[str, str] = {}
    for name, value in headers:
        known = joined.get(name.lower())
        joined[name.lower()] = value if known is None else f"{known}, {value}"
    if (coding := joined.get("content-encoding", CODING).lower()) != CODING:
        reason = f"answered in {coding}, which was not accepted; compress what asks for it only"
        raise DeliveryError(TARGET, reason, is_final=True)
    return Response(status, joined, body)


def _raised(path: str, error: BaseException) -> DeliveryError:
    return DeliveryError(TARGET, f"GET {path}: the app raised {type(error).__name__}: {error}")


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80
