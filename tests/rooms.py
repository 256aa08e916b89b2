"""A room behind each face, and a GRIP proxy's requests for the WebSockets in it.

with talking("wsgi") as talk:
    opened = talk.open()
    talk.say(Event("TEXT", b"hello"))
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import jwt
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path as django_path

from grip_edge_middleware import GripEdge
from grip_edge_middleware.django import edge as django_edge
from grip_edge_middleware.websocket_events import Event, build_events, parse_control, parse_events
from tests.recording import RecordingServer
from tests.sources import django_app  # noqa: F401 - it configures Django

KEY = "a-key-of-thirty-two-bytes-or-more"
SECRET = "a secret of thirty-two characters"
VERIFIED = urlencode({"verify-iss": "pushpin", "verify-key": KEY})
SETTINGS: dict[str, Any] = {
    "grip_url": f"http://127.0.0.1:9?{VERIFIED}",
    "cdn": "varnish://127.0.0.1:9",
    "secret": SECRET,
    "flush_timeout": 0,
    "throttle": 0,
}
ROUTE: dict[str, Any] = {"path": "/rooms/{name}/", "hold": "ws", "receive": True}
FACES = ["wsgi", "asgi", "django", "async-django"]

Answer = tuple[int, list[tuple[str, str]], bytes]


@dataclass
class Room:
    """The app: a page that says what was said, and takes what is said."""

    edge: GripEdge
    said: str = "welcome"
    heard: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)
    closed: list[tuple[str, int | None]] = field(default_factory=list)
    page: Callable[[], Answer | None] = lambda: None
    take: Callable[[bytes], Answer | None] = lambda said: None

    def answer(self, method: str, body: bytes, headers: dict[str, str]) -> Answer:
        self.heard.append((method, body, headers))
        if method == "POST":
            return self.take(body) or (200, [], b"heard " + body)
        return self.page() or (200, [("Set-Cookie", "seen=1")], self.said.encode())

    def on_close(self, socket: Any) -> None:
        self.closed.append((socket.meta.get("user", ""), socket.close_code))

    def wsgi(self, environ: Any, start_response: Any) -> list[bytes]:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or (name.startswith("CONTENT_") and value)
        }
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        status, lines, said = self.answer(environ["REQUEST_METHOD"], body, headers)
        start_response(f"{status} Status", lines)
        return [said]

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {n.decode(): v.decode("latin-1") for n, v in scope["headers"]}
        body, has_more = b"", True
        while has_more:
            message = await receive()
            body, has_more = body + message["body"], message["more_body"]
        status, lines, said = self.answer(scope["method"], body, headers)
        raw = [(name.lower().encode(), value.encode()) for name, value in lines]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": said})

    def view(self, request: HttpRequest, name: str) -> HttpResponse:
        headers = {name.lower(): value for name, value in request.headers.items() if value}
        status, lines, said = self.answer(str(request.method), request.body, headers)
        response = HttpResponse(said, status=status)
        for line, value in lines:
            if line == "Set-Cookie":
                response.cookies.load(value)
            else:
                response[line] = value
        return response


@dataclass(frozen=True)
class Said:
    """What the app tells the proxy."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[Event]:
        assert self.status == 200, (self.status, self.body)
        return parse_events(self.body)

    @property
    def controls(self) -> list[dict[str, Any]]:
        """What the proxy is to do."""
        return [parse_control(e.content) for e in self.events if e.content.startswith(b"c:")]

    @property
    def messages(self) -> list[bytes]:
        """What the client is sent."""
        return [e.content[2:] for e in self.events if e.content.startswith(b"m:")]

    @property
    def kinds(self) -> list[str]:
        return [event.type for event in self.events if not event.content.startswith(b"c:")]

    @property
    def close(self) -> tuple[int, bytes] | None:
        last = self.events[-1]
        if last.type != "CLOSE":
            return None
        return int.from_bytes(last.content[:2], "big"), last.content[2:]


@dataclass
class Talk:
    """One WebSocket's requests, as Pushpin makes them."""

    room: Room
    post: Callable[[str, bytes, Mapping[str, str]], Said]
    path: str = "/rooms/blue/"
    headers: dict[str, str] = field(default_factory=dict)
    meta: str = ""

    def open(self, **headers: str) -> Said:
        return self.say(Event("OPEN"), **headers)

    def say(self, *events: Event, **headers: str) -> Said:
        return self.send(build_events(events), **headers)

    def send(self, body: bytes, **changed: str) -> Said:
        said = {
            "content-type": "application/websocket-events",
            "accept": "application/websocket-events",
            "host": "testserver",
            "connection-id": "one",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-version": "13",
            "sec-websocket-extensions": "grip",
            "grip-sig": signature(),
            "cookie": "user=ann",
            **({"meta-grip-edge": self.meta} if self.meta else {}),
            **self.headers,
            **{name.replace("_", "-"): value for name, value in changed.items()},
        }
        answer = self.post(self.path, body, {n: v for n, v in said.items() if v})
        self.meta = answer.headers.get("set-meta-grip-edge", self.meta)
        return answer


def signature(key: str = KEY, iss: str = "pushpin") -> str:
    return jwt.encode({"iss": iss, "exp": int(time.time()) + 3600}, key, "HS256")


@contextmanager
def talking(face: str, *, settings: Mapping[str, Any] = {}, **route: Any) -> Iterator[Talk]:
    """A room behind a face; what is changed of its route, and of all settings."""
    room = Room(django_edge)
    entry = {**ROUTE, "on_close": room.on_close, **route}
    options = {**SETTINGS, "topics": {"room-{name}": {"routes": [entry]}}, **settings}
    if "django" in face:
        with in_project(room, options):
            yield Talk(room, post_async_django if face == "async-django" else post_django)
        return
    with closing(GripEdge(settings=options, environ={})) as edge:
        room.edge = edge
        yield Talk(room, {"wsgi": post_wsgi, "asgi": post_asgi}[face](edge, room))


@contextmanager
def told(face: str, **settings: Any) -> Iterator[tuple[Talk, RecordingServer]]:
    """A room, and what its CDN and its GRIP proxy are told."""
    with RecordingServer() as server:
        targets = {
            "grip_url": f"{server.url}?{VERIFIED}",
            "cdn": server.url.replace("http", "varnish"),
            "confirm_after": [0.05, 0.1],
            "flush_timeout": 5,
        }
        with talking(face, settings={**targets, **settings}) as talk:
            yield talk, server


def post_wsgi(edge: GripEdge, room: Room) -> Callable[..., Said]:
    face = edge.wsgi(room.wsgi)

    def post(path: str, body: bytes, headers: Mapping[str, str]) -> Said:
        started: list[Any] = []
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "q=1",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
        }
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
        said = b"".join(face(environ, lambda *line: started.append(line)))  # type: ignore[arg-type]
        status, lines = started[0][:2]
        return Said(int(status[:3]), {n.lower(): v for n, v in lines}, said)

    return post


def post_asgi(edge: GripEdge, room: Room) -> Callable[..., Said]:
    face = edge.asgi(room.asgi)

    async def call(path: str, body: bytes, headers: Mapping[str, str]) -> Said:
        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"q=1",
            "headers": [
                (b"content-length", str(len(body)).encode()),
                *((name.encode(), value.encode("latin-1")) for name, value in headers.items()),
            ],
        }
        pieces = [body[:3], body[3:]]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            sent.append(message)

        await face(scope, receive, send)
        lines = {n.decode(): v.decode("latin-1") for n, v in sent[0]["headers"]}
        return Said(sent[0]["status"], lines, b"".join(m["body"] for m in sent[1:]))

    return lambda *request: asyncio.run(call(*request))


@contextmanager
def in_project(room: Room, settings: Mapping[str, Any]) -> Iterator[None]:
    global urlpatterns
    urlpatterns = [django_path("rooms/<name>/", room.view)]
    with override_settings(
        GRIP_EDGE=settings,
        MIDDLEWARE=[
            "grip_edge_middleware.django.GripEdgeMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
        ],
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
    ):
        yield


urlpatterns: list[Any] = []


def post_django(path: str, body: bytes, headers: Mapping[str, str]) -> Said:
    client = Client(raise_request_exception=False, enforce_csrf_checks=True)
    client.cookies.load(headers["cookie"])
    response = client.generic("POST", path, body, **_for_django(headers))
    return _from_django(response)


def post_async_django(path: str, body: bytes, headers: Mapping[str, str]) -> Said:
    async def post() -> Said:
        client = AsyncClient(raise_request_exception=False, enforce_csrf_checks=True)
        client.cookies.load(headers["cookie"])
        return _from_django(await client.generic("POST", path, body, **_for_django(headers)))

    return asyncio.run(post())


def _for_django(headers: Mapping[str, str]) -> Any:
    others = {n: v for n, v in headers.items() if n not in ("content-type", "cookie")}
    return {"content_type": headers["content-type"], "headers": others}


def _from_django(response: Any) -> Said:
    lines = {name.lower(): value for name, value in response.headers.items()}
    for cookie in response.cookies.values():
        lines["set-cookie"] = cookie.OutputString()
    return Said(response.status_code, lines, response.content)
