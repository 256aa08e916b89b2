"""WebSockets over HTTP on real Pushpin, and on the embedded edge, which must be the same.

First what a proxy does with an app that speaks the protocol itself, then what the middleware makes
of it: who may speak for a socket, and that nothing is missed.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from clients import request
from launch import Edge
from servers import wait_until_reached, wsgi_server
from test_edge_config import eventually
from websocket import WebSocket, WebSocketConnectionClosedException, create_connection

from grip_edge_middleware import GripEdge
from grip_edge_middleware.websocket_events import (
    CONTENT_TYPE,
    Event,
    build_close,
    build_control,
    build_events,
    parse_events,
)
from tests.rooms import SECRET, Room

pytestmark = [pytest.mark.live, pytest.mark.both_edges]

DEADLINE_S = 15.0
CROWD = 30
CHANGES = 40
PING, PONG, CLOSE = 9, 10, 8
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}
SPOOFED = {"Content-Type": CONTENT_TYPE, "Accept": CONTENT_TYPE, "Connection-Id": "forged"}

Answer = tuple[int, list[tuple[str, str]], bytes]


READY = Event("TEXT", b"ready?")


def at_last(text: str) -> list[Event]:
    """Say something to the client once all that was said to the proxy before is done.

    Pushpin's part that subscribes is not the one that passes on messages.
    """
    said = {"type": "send-delayed", "message_type": "text", "content": text, "timeout": 5}
    return [build_control(**said), build_control(type="flush-delayed")]


def wait_until_subscribed(socket: WebSocket) -> None:
    socket.send("ready?")
    assert socket.recv() == "ready"


@dataclass
class Script:
    """An app that answers events as a test says, and keeps what it was asked."""

    answer: Callable[[Event], list[Event]] = lambda event: [event] * (event.type == "CLOSE")
    opening: Answer | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[list[Event], dict[str, str]]] = field(default_factory=list)
    opened: set[str] = field(default_factory=set)
    arrived: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if environ["PATH_INFO"] != "/ws/script":
            start_response("404 Not Found", [])
            return [b""]
        events = parse_events(body)
        status, headers, said = self._answer(events)
        start_response(f"{status} Status", [*headers, ("Content-Length", str(len(said)))])
        self._note(events, {n: v for n, v in environ.items() if n.startswith("HTTP_")})
        return [said]

    def _note(self, events: list[Event], headers: dict[str, str]) -> None:
        with self.arrived:
            if Event("OPEN") in events:
                self.opened.add(headers["HTTP_CONNECTION_ID"])
            # The socket of an earlier test may just be closing.
            if headers["HTTP_CONNECTION_ID"] in self.opened:
                self.asked.append((events, headers))
                self.arrived.notify_all()

    def _answer(self, events: list[Event]) -> Answer:
        if self.opening is not None:
            return self.opening
        said = [out for event in events for out in self.answer(event)]
        if READY in events:
            said = at_last("ready")
        if Event("OPEN") in events:
            said = [Event("OPEN"), build_control(type="subscribe", channel="script"), *said]
        headers = [("Content-Type", CONTENT_TYPE), ("Sec-WebSocket-Extensions", "grip")]
        return 200, [*headers, *self.headers], build_events(said)

    @property
    def heard(self) -> list[Event]:
        return [event for events, _ in self.asked for event in events]

    def wait_for(self, *events: Event) -> None:
        with self.arrived:
            assert self.arrived.wait_for(
                lambda: all(event in self.heard for event in events), DEADLINE_S
            ), self.heard


@pytest.fixture(scope="module")
def served(socket_edge: Edge) -> Iterator[tuple[Edge, list[Any]]]:
    """The edge, in front of whatever app a test puts there."""
    current: list[Any] = [Script()]
    with wsgi_server(lambda *request: current[0](*request), socket_edge.app_port):
        wait_until_reached(socket_edge.url)
        yield socket_edge, current


@pytest.fixture
def script(served: tuple[Edge, list[Any]]) -> Script:
    script = Script()
    served[1][0] = script
    return script


@contextmanager
def connected(edge: Edge, path: str = "/ws/script", **options: Any) -> Iterator[WebSocket]:
    url = f"ws://127.0.0.1:{edge.client_port}{path}"
    socket = create_connection(url, timeout=DEADLINE_S, **options)
    try:
        yield socket
    finally:
        socket.close()
        socket.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def edge(served: tuple[Edge, list[Any]]) -> Edge:
    return served[0]


def publish(edge: Edge, **message: object) -> None:
    item = {"channel": "script", "formats": {"ws-message": message}}
    body = json.dumps({"items": [item]}).encode()
    assert request(f"{edge.control_url}/publish/", method="POST", body=body).status == 200


def echo(event: Event) -> list[Event]:
    if event.type not in ("TEXT", "BINARY"):
        return []
    return [Event(event.type, b"m:" + event.content)]


def handshake(edge: Edge, path: str, **headers: str) -> Any:
    with closing(http.client.HTTPConnection("127.0.0.1", edge.client_port, DEADLINE_S)) as client:
        client.request("GET", path, headers={**HANDSHAKE, **headers})
        answer = client.getresponse()
        return answer.status, answer.headers, answer.read()


# --- the proxy --------------------------------------------------------------------------------


def test_the_handshake_has_the_apps_headers(edge: Edge, script: Script) -> None:
    script.headers = [
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Sec-WebSocket-Protocol", "chat"),
        ("X-App", "yes"),
        ("Set-Meta-User", "ann"),
        ("Keep-Alive-Interval", "30"),
    ]
    with connected(edge, subprotocols=["chat"]) as socket:
        found = socket.headers

    assert (found["x-app"], found["sec-websocket-protocol"]) == ("yes", "chat")
    assert "b=2" in found["set-cookie"]
    hidden = {"set-meta-user", "keep-alive-interval", "sec-websocket-extensions", "content-type"}
    assert not hidden & found.keys()


def test_the_app_hears_what_the_client_said_when_it_connected(edge: Edge, script: Script) -> None:
    forged = ["Meta-Evil: 1", "Grip-Evil: 1", "Connection-Id: evil", "Accept: text/html"]
    with connected(edge, header=[*forged, "X-Mine: 1", "Cookie: a=b"]):
        pass

    _, headers = script.asked[0]
    assert (headers["HTTP_X_MINE"], headers["HTTP_COOKIE"]) == ("1", "a=b")
    assert headers["HTTP_ACCEPT"] == CONTENT_TYPE
    assert headers["HTTP_SEC_WEBSOCKET_EXTENSIONS"] == "grip"
    assert headers["HTTP_CONNECTION_ID"] != "evil"
    assert not {"HTTP_META_EVIL", "HTTP_GRIP_EVIL"} & headers.keys()


@pytest.mark.parametrize("status", [302, 403, 404, 503])
def test_a_refused_handshake_is_the_apps_answer(edge: Edge, script: Script, status: int) -> None:
    script.opening = (status, [("Location", "/login"), ("X-Why", "no")], b"<p>no")

    found, headers, body = handshake(edge, "/ws/script")

    assert (found, headers["X-Why"], headers["Location"]) == (status, "no", "/login")
    # Varnish shows a page of its own for what it keeps no copy of.
    assert body == b"<p>no"


@pytest.mark.parametrize("body", [b"TEXT 1\r\nx\r\n", b"<html>", b"", b"OPEN"])
def test_what_is_no_opening_is_a_bad_gateway(edge: Edge, script: Script, body: bytes) -> None:
    script.opening = (200, [("Content-Type", CONTENT_TYPE)], body)

    assert handshake(edge, "/ws/script")[0] == 502


def test_messages_pass_both_ways(edge: Edge, script: Script) -> None:
    script.answer = echo
    with connected(edge) as socket:
        socket.send("hello")
        assert socket.recv() == "hello"
        socket.send_binary(b"\xff")
        assert socket.recv() == b"\xff"
        socket.send("")
        assert socket.recv() == ""

    assert script.heard[:4] == [
        Event("OPEN"),
        Event("TEXT", b"hello"),
        Event("BINARY", b"\xff"),
        Event("TEXT"),
    ]


def test_what_lacks_the_prefix_is_dropped(edge: Edge, script: Script) -> None:
    script.answer = lambda event: [Event("TEXT", b"dropped"), Event("TEXT", b"m:sent")]
    with connected(edge) as socket:
        assert socket.recv() == "sent"


def test_the_prefix_may_be_another(edge: Edge, script: Script) -> None:
    script.opening = (
        200,
        [
            ("Content-Type", CONTENT_TYPE),
            ("Sec-WebSocket-Extensions", 'grip; message-prefix="x"'),
        ],
        build_events([Event("OPEN"), Event("TEXT", b"m:dropped"), Event("TEXT", b"xsent")]),
    )
    with connected(edge) as socket:
        assert socket.recv() == "sent"


def test_meta_is_kept_and_changed(edge: Edge, script: Script) -> None:
    script.answer = echo
    script.headers = [("Set-Meta-User", "ann")]
    with connected(edge) as socket:
        for headers in ([("Set-Meta-User", "bob")], [], []):
            script.headers = headers
            socket.send("next")
            socket.recv()

    metas = [headers.get("HTTP_META_USER") for _, headers in script.asked[:4]]
    assert metas == [None, "ann", "bob", "bob"]
    assert len({headers["HTTP_CONNECTION_ID"] for _, headers in script.asked}) == 1


def test_who_is_subscribed_hears_what_is_published(edge: Edge, script: Script) -> None:
    script.answer = lambda event: (
        [build_control(type="unsubscribe", channel="script"), *at_last("left")]
        if event == Event("TEXT", b"leave")
        else echo(event)
    )
    with connected(edge) as socket, connected(edge) as other:
        wait_until_subscribed(socket)
        wait_until_subscribed(other)
        publish(edge, content="news")
        assert (socket.recv(), other.recv()) == ("news", "news")
        other.send("leave")
        assert other.recv() == "left"
        publish(edge, **{"content-bin": "/w=="})
        assert socket.recv() == b"\xff"
        other.send("still there?")

        assert other.recv() == "still there?"


def test_a_publish_may_close(edge: Edge, script: Script) -> None:
    script.answer = echo
    with connected(edge) as socket:
        wait_until_subscribed(socket)
        publish(edge, action="close", code=4001, reason="over")

        assert socket.recv_data()[1] == b"\x0f\xa1over"
        script.wait_for(Event("CLOSE"))


def test_the_app_may_close(edge: Edge, script: Script) -> None:
    script.answer = lambda event: (
        [Event("TEXT", b"m:bye"), build_close(4002, "over")] if event == Event("TEXT", b"x") else []
    )
    with connected(edge) as socket:
        socket.send("x")

        assert socket.recv() == "bye"
        assert socket.recv_data()[1] == b"\x0f\xa2over"


def test_the_client_may_close(edge: Edge, script: Script) -> None:
    with connected(edge) as socket:
        socket.send_close(4003, b"bye")

        assert socket.recv_data()[1][:2] == b"\x0f\xa3"
        script.wait_for(Event("CLOSE", b"\x0f\xa3bye"))


@pytest.mark.parametrize(
    "answer", [(500, [], b""), (200, [("Content-Type", CONTENT_TYPE)], b"<html>")]
)
def test_an_app_that_fails_loses_the_connection(edge: Edge, script: Script, answer: Answer) -> None:
    with connected(edge) as socket:
        script.opening = answer
        socket.send("x")

        with pytest.raises(WebSocketConnectionClosedException):
            socket.recv()


def test_a_ping_of_the_app_is_answered(edge: Edge, script: Script) -> None:
    script.answer = lambda event: [Event("PING", b"x")] if event == Event("OPEN") else []
    with connected(edge) as socket:
        socket.settimeout(0.1)
        answer_pings(socket)

        script.wait_for(Event("PONG", b"x"))


def test_a_delayed_ping_is_answered_later(edge: Edge, script: Script) -> None:
    control = {"type": "send-delayed", "message_type": "ping", "content": "x", "timeout": 1}
    script.answer = lambda event: [build_control(**control)] if event == Event("OPEN") else []
    with connected(edge) as socket:
        began = time.monotonic()
        socket.settimeout(DEADLINE_S)
        threading.Thread(target=answer_pings, args=(socket,), daemon=True).start()
        script.wait_for(Event("PONG", b"x"))

    assert time.monotonic() - began > 0.9


def answer_pings(socket: WebSocket) -> None:
    try:
        socket.recv()
    except Exception:  # the time is up, or it is closed
        return


def test_who_is_idle_is_kept_alive(edge: Edge, script: Script) -> None:
    control = {"type": "keep-alive", "message_type": "text", "content": "alive", "timeout": 1}
    script.answer = lambda event: [build_control(**control)] if event == Event("OPEN") else []
    with connected(edge) as socket:
        assert (socket.recv(), socket.recv()) == ("alive", "alive")


def test_who_is_detached_hears_only_what_is_published(edge: Edge, script: Script) -> None:
    script.answer = lambda event: (
        [build_control(type="detach"), *at_last("alone")] if event == Event("TEXT", b"x") else []
    )
    with connected(edge) as socket:
        socket.send("x")
        assert socket.recv() == "alone"
        publish(edge, content="news")
        assert socket.recv() == "news"
        socket.send("nobody hears this")
        publish(edge, content="more")
        assert socket.recv() == "more"

    assert Event("TEXT", b"nobody hears this") not in script.heard


def test_a_client_cannot_post_events_itself(edge: Edge, script: Script) -> None:
    answer = request(f"{edge.url}/ws/script", SPOOFED, method="POST", body=b"OPEN\r\n")

    assert answer.status == 403
    assert script.asked == []


# --- the middleware ---------------------------------------------------------------------------


@pytest.fixture
def room(served: tuple[Edge, list[Any]]) -> Iterator[Room]:
    """A room at /ws/NAME/, and at /plain/NAME/, where Pushpin passes on what clients post."""
    edge, current = served
    settings = {
        "grip_url": f"{edge.control_url}?verify-key={edge.verify_key}",
        "cdn": edge.cdn_url,
        "secret": SECRET,
        "hold": "ws",
        "receive": True,
        "throttle": 0,
        "topics": {
            "room-{name}": {"routes": ["/ws/{name}/"]},
            "plain-{name}": {"routes": ["/plain/{name}/"]},
        },
    }
    with closing(GripEdge(settings=settings, environ={})) as grip_edge:
        room = Room(grip_edge)
        current[0] = grip_edge.wsgi(room.wsgi)
        yield room


def test_a_room(edge: Edge, room: Room) -> None:
    with connected(edge, "/ws/a/") as one, connected(edge, "/ws/a/") as other:
        assert (one.recv(), other.recv()) == ("welcome", "welcome")
        one.send("hello")
        assert one.recv() == "heard hello"
        room.said = "news"
        room.edge.submit("room-a")
        assert (one.recv(), other.recv()) == ("news", "news")


def test_what_changes_while_it_is_opened_is_not_missed(edge: Edge, room: Room) -> None:
    """The page is made, and it changes and is published before the proxy has subscribed anybody."""

    def page() -> Answer | None:
        if len(room.heard) > 1:
            return None
        said = room.said.encode()
        room.said = "news"
        room.edge.publish("room-b", "news")
        room.edge.flush()
        return 200, [], said

    room.page = page
    with connected(edge, "/ws/b/") as socket:
        assert (socket.recv(), socket.recv()) == ("welcome", "news")


@pytest.mark.real_edge  # a crowd
def test_a_crowd_that_opens_amid_changes_ends_on_the_last(edge: Edge, room: Room) -> None:
    """Each looks at what it was told last, some time after the last change."""
    told: dict[int, list[str]] = {}
    is_over = threading.Event()

    def watch(number: int) -> None:
        seen = told[number] = []
        with connected(edge, "/ws/crowd/") as socket:
            while not seen or seen[-1] != str(CHANGES):
                seen.append(str(socket.recv()))
            assert is_over.wait(DEADLINE_S)

    room.said = "0"
    with ThreadPoolExecutor(CROWD) as pool:
        watching = [pool.submit(watch, number) for number in range(CROWD)]
        for value in range(1, CHANGES + 1):
            room.said = str(value)
            room.edge.submit("room-crowd")
            is_over.wait(0.01)
        try:
            eventually(
                lambda: all(each[-1:] == [str(CHANGES)] for each in told.values()), DEADLINE_S
            )
        finally:
            is_over.set()
        for each in watching:
            each.result(DEADLINE_S)

    asked = sum(method == "GET" for method, _, _ in room.heard)
    messages = sum(map(len, told.values()))
    print(f"\n{CROWD} sockets, {CHANGES} changes: {messages} messages, {asked} GETs of the app")
    assert len(told) == CROWD


def test_a_page_of_another_site_is_refused(edge: Edge, room: Room) -> None:
    evil = "https://evil.example"

    assert handshake(edge, "/ws/c/", Origin=evil)[0] == 403
    # Sockets of a test before may be caught up with.
    assert not [headers for _, _, headers in room.heard if headers.get("origin") == evil]


def test_the_app_refuses_as_it_does_in_any_view(edge: Edge, room: Room) -> None:
    room.page = lambda: (302, [("Location", "/login")], b"")

    status, headers, _ = handshake(edge, "/ws/d/")

    assert (status, headers["Location"]) == (302, "/login")


@pytest.mark.real_edge  # the embedded edge passes on nothing of the kind
def test_events_of_a_client_through_a_plain_route_come_to_nothing(edge: Edge, room: Room) -> None:
    """They arrive with a good Grip-Sig, and with any Meta that the client likes."""
    url = f"{edge.url}/plain/e/"
    opened = request(url, SPOOFED, method="POST", body=b"OPEN\r\n")
    said = [
        request(url, {**SPOOFED, **meta}, method="POST", body=b"TEXT 1\r\nx\r\n")
        for meta in ({}, {"Meta-Grip-Edge": "W10=.00"}, {"Meta-Grip-Edge": "", "Meta-User": "ann"})
    ]

    assert opened.status == 200  # what a GET would have said
    assert not [name for name in opened.headers if name.lower().startswith("set-meta")]
    assert [answer.status for answer in said] == [403, 403, 403]
    assert "POST" not in [method for method, _, _ in room.heard]


@pytest.mark.real_edge
def test_a_client_has_no_meta_of_its_own_socket_to_show(edge: Edge, room: Room) -> None:
    with connected(edge, "/ws/f/") as socket:
        assert not [name for name in socket.headers if "meta" in name]
