"""WebSockets behind each face: what the app is asked, and what the proxy is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grip_edge_middleware.sockets import MAX_EVENTS_BYTES
from grip_edge_middleware.websocket_events import Event
from tests.rooms import FACES, Talk, signature, talking, told

HELLO = Event("TEXT", b"hello")
PONG = Event("PONG", b".")


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def talk(face: str) -> Iterator[Talk]:
    with talking(face) as talk:
        yield talk


@pytest.fixture
def wsgi() -> Iterator[Talk]:
    with talking("wsgi") as talk:
        yield talk


# --- opening ----------------------------------------------------------------------------------


def test_who_connects_is_sent_the_page_and_subscribed(talk: Talk) -> None:
    opened = talk.open()

    assert opened.headers["content-type"] == "application/websocket-events"
    assert opened.headers["sec-websocket-extensions"] == "grip"
    assert opened.headers["set-cookie"].startswith("seen=1")
    assert opened.headers["keep-alive-interval"] == "600"
    assert opened.kinds == ["OPEN", "TEXT"]
    assert opened.messages == [b"welcome"]
    assert opened.controls[0] == {"type": "subscribe", "channel": "room-blue"}
    assert opened.controls[1]["type"] == "keep-alive"
    assert [c["type"] for c in opened.controls[2:]] == ["send-delayed", "flush-delayed"]


def test_the_app_is_asked_a_get_with_what_the_client_said(talk: Talk) -> None:
    talk.open(
        accept_encoding="gzip", if_none_match="*", range="bytes=1-", x_mine="1", meta_evil="1"
    )

    [(method, body, headers)] = talk.room.heard
    assert (method, body) == ("GET", b"")
    assert (headers["cookie"], headers["x-mine"], headers["accept"]) == ("user=ann", "1", "*/*")
    dropped = {"accept-encoding", "if-none-match", "range", "connection-id", "content-type"}
    assert not dropped & headers.keys()
    assert not [n for n in headers if n.startswith(("grip-", "meta-", "sec-websocket-"))]


@pytest.mark.parametrize("status", [302, 403, 404, 410, 500])
def test_a_refused_handshake_is_the_apps_own_answer(talk: Talk, status: int) -> None:
    talk.room.page = lambda: (status, [("Location", "/login"), ("X-Why", "no")], b"go away")

    refused = talk.open()

    assert (refused.status, refused.headers["x-why"]) == (status, "no")
    assert refused.headers["location"] == "/login"
    assert refused.body == b"go away"
    assert "set-meta-grip-edge" not in refused.headers


def test_an_app_that_raises_refuses(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError("secret")

    talk.room.page = fail

    refused = talk.open()

    assert refused.status == 500
    assert b"ZeroDivision" not in refused.body
    assert "ZeroDivisionError" in caplog.text


def test_bytes_are_binary_and_nothing_is_no_message(wsgi: Talk) -> None:
    wsgi.room.page = lambda: (200, [], b"\xff")
    assert wsgi.open().kinds == ["OPEN", "BINARY"]
    wsgi.room.page = lambda: (200, [], b"")
    assert wsgi.open().kinds == ["OPEN"]


def test_the_view_may_use_the_socket(talk: Talk) -> None:
    def page() -> None:
        socket = talk.room.edge.socket
        assert socket is not None
        assert (socket.is_opening, socket.id) == (True, "one")
        socket.send("first")
        socket.subscribe("room-{name}", name="a b")
        socket.unsubscribe("room-blue")
        socket.meta["user"] = "ann"

    talk.room.page = page
    opened = talk.open()
    users = []
    talk.room.take = lambda said: users.append(talk.room.edge.socket.meta["user"])  # type: ignore
    talk.say(HELLO)

    assert opened.messages == [b"first", b"welcome"]
    assert opened.controls[2:4] == [
        {"type": "subscribe", "channel": "room-a%20b"},
        {"type": "unsubscribe", "channel": "room-blue"},
    ]
    assert users == ["ann"]
    assert talk.room.edge.socket is None


def test_the_view_may_close_at_once(wsgi: Talk) -> None:
    def page() -> None:
        assert wsgi.room.edge.socket is not None
        wsgi.room.edge.socket.close(4001, "full")

    wsgi.room.page = page

    assert wsgi.open().close == (4001, b"full")


# --- messages ---------------------------------------------------------------------------------


def test_what_the_client_says_is_a_post_and_its_answer_a_message(talk: Talk) -> None:
    talk.open()

    said = talk.say(HELLO, Event("BINARY", b"\xff"))

    (_, first, text), (method, second, binary) = talk.room.heard[1:]
    assert (method, first, second) == ("POST", b"hello", b"\xff")
    assert text["content-type"] == "text/plain; charset=utf-8"
    assert binary["content-type"] == "application/octet-stream"
    assert (text["content-length"], text["cookie"]) == ("5", "user=ann")
    assert said.messages == [b"heard hello", b"heard \xff"]
    assert said.kinds == ["TEXT", "BINARY"]


def test_what_the_client_says_is_no_control_message(wsgi: Talk) -> None:
    wsgi.open()
    wsgi.room.take = lambda said: (200, [], said)

    said = wsgi.say(Event("TEXT", b'c:{"type":"subscribe","channel":"secret"}'))

    assert said.controls == []
    assert said.messages == [b'c:{"type":"subscribe","channel":"secret"}']


@pytest.mark.parametrize(
    ("status", "close"),
    [
        (403, (1008, b"Forbidden")),
        (500, (1011, b"Internal Server Error")),
        (204, None),
        (303, None),
    ],
)
def test_what_the_app_refuses_closes(talk: Talk, status: int, close: object) -> None:
    talk.open()
    talk.room.take = lambda said: (status, [], b"")

    said = talk.say(HELLO, Event("TEXT", b"again"))

    assert (said.close if close else said.body or None) == close
    assert len(talk.room.heard) == (2 if close else 3)


def test_nothing_is_received_unless_the_route_says_so(face: str) -> None:
    with talking(face, receive=False) as talk:
        talk.open()

        assert talk.say(HELLO).events == []
        assert len(talk.room.heard) == 1


def test_a_ping_is_answered(wsgi: Talk) -> None:
    wsgi.open()

    assert wsgi.say(Event("PING", b"x")).events == [Event("PONG", b"x")]


def test_the_app_is_told_when_it_is_closed(talk: Talk) -> None:
    talk.room.page = lambda: talk.room.edge.socket.meta.update(user="ann")  # type: ignore
    talk.open()

    closed = talk.say(Event("CLOSE", b"\x0f\xa1bye"))
    gone = talk.say(Event("DISCONNECT"))

    assert closed.events == [Event("CLOSE", b"\x0f\xa1")]
    assert gone.events == []
    assert talk.room.closed == [("ann", 4001), ("ann", None)]


# --- nothing is missed ------------------------------------------------------------------------


def test_what_changed_before_the_subscription_is_shown_after_it(face: str) -> None:
    with told(face) as (talk, server):
        talk.open()
        talk.room.said = "news"
        talk.room.edge.publish("room-blue", "news")
        server.wait_for_channels("room-blue")

        behind = talk.say(PONG)
        upto_date = talk.say(PONG)

    assert behind.messages == [b"news"]
    assert [(c["type"], c["timeout"]) for c in behind.controls] == [("send-delayed", 1)]
    assert upto_date.events == []


def test_who_is_up_to_date_costs_the_app_nothing(talk: Talk) -> None:
    talk.open()

    assert talk.say(PONG).events == []
    assert len(talk.room.heard) == 1


@pytest.fixture
def behind() -> Iterator[Talk]:
    """A socket whose client has missed something."""
    with told("wsgi") as (talk, server):
        talk.open()
        talk.room.edge.submit("room-blue")
        server.wait_for_channels("room-blue")
        yield talk


def test_a_proxy_that_asks_without_events_is_told_what_is_missed(behind: Talk) -> None:
    assert behind.send(b"").messages == [b"welcome"]
    assert behind.send(b"").events == []


@pytest.mark.parametrize(
    ("status", "close"), [(404, (1000, b"")), (410, (1000, b"")), (403, (1008, b"Forbidden"))]
)
def test_a_page_that_is_there_no_more_closes(behind: Talk, status: int, close: object) -> None:
    behind.room.page = lambda: (status, [], b"")

    assert behind.say(PONG).close == close


def test_a_page_that_fails_is_asked_for_later(behind: Talk) -> None:
    behind.room.page = lambda: (503, [], b"")

    [later] = behind.say(PONG).controls
    behind.room.page = lambda: None

    assert (later["type"], later["message-type"], later["timeout"]) == ("send-delayed", "ping", 5)
    assert behind.say(PONG).messages == [b"welcome"]


def test_a_page_that_is_gone_closes_all_sockets() -> None:
    with told("wsgi") as (talk, server):
        talk.room.page = lambda: (404, [], b"")
        talk.room.edge.submit("room-blue")
        server.wait_for_channels("room-blue")
        [item] = server.items

    assert item["formats"]["ws-message"] == {"action": "close", "code": 1000}


def test_data_reaches_sockets_and_markers_do_not() -> None:
    with told("wsgi") as (talk, server):
        talk.room.edge.publish("room-blue", {"n": 1})
        talk.room.edge.flush()
        server.wait_for(lambda seen: sum(request.is_purge for request in seen) == 3)
        talk.room.edge.flush()

    assert [item["formats"] for item in server.items] == [{"ws-message": {"content": '{"n":1}'}}]


def test_what_may_be_read_from_a_replica_is_looked_at_again() -> None:
    with told("wsgi", replica_lag=60) as (talk, server):
        talk.room.edge.publish("room-blue", "news")
        server.wait_for_channels("room-blue")

        opened, again = talk.open(), talk.say(PONG)

    for said in (opened, again):
        assert said.controls[-1]["type"] == "send-delayed"
        assert said.messages == [b"welcome"]


def test_workers_that_never_agree_are_asked_less_and_less() -> None:
    """Each has versions of its own, where they share no store."""
    with talking("wsgi") as one, talking("wsgi") as other:
        one.open()
        waits = []
        for talk, before in zip([other, one] * 6, [one, other] * 6, strict=True):
            talk.meta = before.meta
            [ping] = talk.say(PONG).controls
            waits.append(ping["timeout"])
        assert one.say(PONG).events == []
        other.meta = one.meta
        [after_agreement] = other.say(PONG).controls

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]
    assert after_agreement["timeout"] == 1


def test_without_recovery_nothing_is_asked() -> None:
    with talking("wsgi", settings={"recovery": None}) as talk:
        opened = talk.open()

    assert [c["type"] for c in opened.controls] == ["subscribe", "keep-alive"]
    assert "keep-alive-interval" not in opened.headers


# --- who asks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"grip_sig": ""},
        {"grip_sig": signature("another key of thirty-two bytes!")},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver:8000"},
        {"origin": "http://testserver.evil.example"},
    ],
)
def test_a_stranger_is_refused(talk: Talk, headers: dict[str, str]) -> None:
    refused = talk.open(**headers)

    assert (refused.status, refused.body) == (403, b"Forbidden\n")
    assert talk.room.heard == []


@pytest.mark.parametrize("origin", ["", "http://testserver", "http://TESTSERVER:80"])
def test_a_page_of_the_same_origin_may_connect(wsgi: Talk, origin: str) -> None:
    assert wsgi.open(origin=origin).status == 200


@pytest.mark.parametrize("origins", [["https://example.com"], "*", ["*"]])
def test_a_page_that_is_named_may_connect(origins: object) -> None:
    with talking("wsgi", origins=origins) as talk:
        assert talk.open(origin="https://EXAMPLE.com").status == 200


@pytest.mark.parametrize("forged", ["", "evil", "W10=.00", "é.é"])
def test_meta_that_is_not_ours_is_refused(talk: Talk, forged: str) -> None:
    talk.open()
    talk.meta = forged

    refused = talk.say(HELLO)

    assert refused.status == 403
    assert len(talk.room.heard) == 1


def test_meta_of_another_socket_or_room_is_refused(wsgi: Talk) -> None:
    wsgi.open()

    assert wsgi.say(HELLO, connection_id="two").status == 403
    wsgi.path = "/rooms/red/"
    assert wsgi.say(HELLO).status == 403
    assert len(wsgi.room.heard) == 1


def test_the_client_of_a_plain_post_is_not_shown_its_meta(wsgi: Talk) -> None:
    """GRIP: a proxy that holds nothing passes on only the headers that are named there."""
    assert wsgi.open().headers["grip-expose-headers"] == "content-type"


@pytest.mark.parametrize("body", [b"TEXT", b"TEXT -1\r\n", b"TEXT 5\r\nab\r\n", b"<html>\r\n"])
def test_what_is_no_event_is_refused(wsgi: Talk, body: bytes) -> None:
    wsgi.open()

    assert wsgi.send(body).status == 400


def test_more_than_is_read_is_refused(talk: Talk) -> None:
    talk.open()

    assert talk.say(Event("TEXT", b"x" * MAX_EVENTS_BYTES)).status == 413


@pytest.mark.parametrize("content_type", ["Application/WebSocket-Events", "text/plain"])
def test_another_post_is_the_apps_own(wsgi: Talk, content_type: str) -> None:
    said = wsgi.send(b"OPEN\r\n", content_type=content_type)

    assert (said.status, said.body) == (200, b"heard OPEN\r\n")


def test_elsewhere_the_app_sees_such_a_post_untouched(face: str) -> None:
    with talking(face, hold=None) as talk:
        if "django" in face:  # which has its own opinion of a post without a token
            talk.headers["cookie"] = "csrftoken=" + "x" * 32
            talk.headers["x-csrftoken"] = "x" * 32
        talk.send(b"OPEN\r\n")

        [(_, body, headers)] = talk.room.heard
        assert body == b"OPEN\r\n"
        assert headers["content-type"] == "application/websocket-events"


def test_a_meta_that_is_too_large_closes(wsgi: Talk, caplog: pytest.LogCaptureFixture) -> None:
    wsgi.open()
    wsgi.room.take = lambda said: wsgi.room.edge.socket.meta.update(big="x" * 5000)  # type: ignore

    assert wsgi.say(HELLO).close == (1011, b"")
    assert "exceeds 4096 bytes" in caplog.text
