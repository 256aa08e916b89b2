"""WebSockets over HTTP: a WSGI app serves sockets that the development edge keeps."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

from websocket import WebSocket, create_connection

from grip_edge_middleware.devedge import DevEdge
from grip_edge_middleware.websocket_events import Event, build_events, parse_events

DEADLINE_S = 10.0
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


def control(**message: object) -> Event:
    return Event("TEXT", b"c:" + json.dumps(message).encode())


@dataclass
class Chat:
    """An app that subscribes whoever comes to "room", and echoes."""

    heard: list[Event] = field(default_factory=list)
    seen: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] != "/room":
            start_response("404 Not Found", [])
            return [b""]
        self.seen.append({n: v for n, v in environ.items() if n.startswith("HTTP_")})
        [event] = parse_events(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        self.heard.append(event)
        headers = [
            ("Content-Type", "application/websocket-events"),
            ("Sec-WebSocket-Extensions", 'grip; message-prefix=""'),
            ("Set-Meta-User", "ann"),
        ]
        start_response("200 OK", headers)
        return [build_events(self.answer(event))]

    def answer(self, event: Event) -> list[Event]:
        if event.type == "OPEN":
            return [Event("OPEN"), control(type="subscribe", channel="room")]
        if event.content == b"leave":
            return [control(type="unsubscribe", channel="room"), Event("TEXT", b"left")]
        if event.content == b"bye":
            return [Event("CLOSE", (4000).to_bytes(2, "big"))]
        return [event]


@contextmanager
def chat() -> Iterator[tuple[Chat, DevEdge, str, str]]:
    app = Chat()
    edge = DevEdge(app)
    with edge.running() as running:
        yield app, edge, f"ws://127.0.0.1:{running.ports['clients']}", running.url("control")


@contextmanager
def connected(url: str) -> Iterator[WebSocket]:
    socket = create_connection(url, timeout=DEADLINE_S)
    try:
        yield socket
    finally:
        socket.close()
        # If the other side closed it, that did nothing.
        socket.shutdown()  # type: ignore[no-untyped-call]


def publish(control_url: str, socket: WebSocket, **message: object) -> None:
    """Publish once the socket is subscribed: its echo comes after that."""
    socket.send("ready?")
    assert socket.recv() == "ready?"
    body = json.dumps({"items": [{"channel": "room", "formats": {"ws-message": message}}]})
    with urlopen(f"{control_url}/publish/", body.encode(), DEADLINE_S) as answer:
        assert answer.status == 200


def test_the_app_answers_what_a_client_says() -> None:
    with chat() as (app, _, url, _), connected(f"{url}/room") as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
        socket.send_binary(b"\xff")
        assert socket.recv() == b"\xff"

    assert app.heard[:3] == [Event("OPEN"), Event("TEXT", b"hello"), Event("BINARY", b"\xff")]
    assert len({seen["HTTP_CONNECTION_ID"] for seen in app.seen}) == 1
    assert [seen.get("HTTP_META_USER") for seen in app.seen[:2]] == [None, "ann"]
    assert all("HTTP_GRIP_SIG" in seen for seen in app.seen)


def test_what_is_published_reaches_who_is_subscribed() -> None:
    with chat() as (_, _, url, control_url), connected(f"{url}/room") as socket:
        publish(control_url, socket, content="news")

        assert socket.recv() == "news"


def test_who_left_is_told_nothing() -> None:
    with chat() as (_, edge, url, _), connected(f"{url}/room") as socket:
        socket.send("leave")
        assert socket.recv() == "left"

        assert not edge.proxy.is_watched("room")


def test_a_publish_may_close() -> None:
    with chat() as (_, _, url, control_url), connected(f"{url}/room") as socket:
        publish(control_url, socket, action="close", code=4001)

        assert socket.recv_data()[1][:2] == (4001).to_bytes(2, "big")


def test_the_app_may_close() -> None:
    with chat() as (_, _, url, _), connected(f"{url}/room") as socket:
        socket.send("bye")

        assert socket.recv_data()[1][:2] == (4000).to_bytes(2, "big")


def test_what_the_app_does_not_open_is_refused() -> None:
    with chat() as (_, _, url, _):
        client = http.client.HTTPConnection(url.removeprefix("ws://"), timeout=DEADLINE_S)
        client.request("GET", "/elsewhere", headers=HANDSHAKE)
        answer = client.getresponse()
        answer.read()
        client.close()

    assert answer.status == 404
