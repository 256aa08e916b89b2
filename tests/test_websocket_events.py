"""WebSocket-over-HTTP, read both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.websocket_events import (
    Event,
    EventsError,
    build_close,
    build_control,
    build_events,
    build_message,
    message_prefix,
    parse_close,
    parse_control,
    parse_events,
)


@pytest.mark.parametrize(
    ("events", "body"),
    [
        ([], b""),
        ([Event("OPEN")], b"OPEN\r\n"),
        ([Event("TEXT", b"hello")], b"TEXT 5\r\nhello\r\n"),
        ([Event("BINARY", b"\r\n" * 8)], b"BINARY 10\r\n" + b"\r\n" * 8 + b"\r\n"),
        ([Event("OPEN"), Event("CLOSE", b"\x03\xe8")], b"OPEN\r\nCLOSE 2\r\n\x03\xe8\r\n"),
        ([Event("TEXT"), Event("DISCONNECT")], b"TEXT 0\r\n\r\nDISCONNECT\r\n"),
        ([Event("CLOSE"), Event("PING", b"x")], b"CLOSE\r\nPING 1\r\nx\r\n"),
    ],
)
def test_events_and_bodies(events: list[Event], body: bytes) -> None:
    assert build_events(events) == body
    assert parse_events(body) == events


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b"text A\r\n0123456789\r\n", [Event("TEXT", b"0123456789")]),
        (b"PING\r\nPONG\r\n", [Event("PING"), Event("PONG")]),  # as Pushpin says those without
        (b"FUTURE 1\r\nx\r\n", [Event("FUTURE", b"x")]),
    ],
)
def test_what_others_may_write_is_read(body: bytes, events: list[Event]) -> None:
    assert parse_events(body) == events


@pytest.mark.parametrize(
    "body",
    [
        b"TEXT",
        b"TEXT x\r\n",
        b"TEXT \r\n",
        b"TEXT -1\r\nx\r\n",
        b"TEXT 0x1\r\nx\r\n",
        b"TEXT 1_0\r\n0123456789012345\r\n",
        b"TEXT 9\r\nshort\r\n",
        b"TEXT 1\r\nlong\r\n",
        b"TEXT 1\r\nx",
        b"TEXT 111111111\r\nx\r\n",
        b"\r\n",
        b" 1\r\nx\r\n",
        b"<html>\r\n",
        b"OPEN\r\n\xff\r\n",
    ],
)
def test_what_is_no_event_is_an_error(body: bytes) -> None:
    with pytest.raises(EventsError):
        parse_events(body)


@given(
    st.lists(
        st.builds(
            Event,
            st.sampled_from(["TEXT", "BINARY", "PING", "PONG", "CLOSE"]),
            st.binary(max_size=300),
        )
        | st.sampled_from([Event("OPEN"), Event("DISCONNECT")])
    )
)
def test_what_is_built_is_read(events: list[Event]) -> None:
    assert parse_events(build_events(events)) == events


@given(st.binary(max_size=100))
def test_anything_is_read_or_refused(body: bytes) -> None:
    try:
        events = parse_events(body)
    except EventsError:
        return

    assert sum(len(event.content) for event in events) <= len(body)


@pytest.mark.parametrize(
    ("code", "reason", "content"),
    [
        (1000, "", b"\x03\xe8"),
        (4001, "bye", b"\x0f\xa1bye"),
        (4001, "é" * 100, b"\x0f\xa1" + "é".encode() * 61),  # whole letters, 125 bytes at most
    ],
)
def test_close_says_code_and_reason(code: int, reason: str, content: bytes) -> None:
    event = build_close(code, reason)

    assert event == Event("CLOSE", content)
    assert parse_close(event) == (code, content[2:].decode())


@pytest.mark.parametrize("content", [b"", b"\x03"])
def test_a_close_may_say_no_code(content: bytes) -> None:
    assert parse_close(Event("CLOSE", content)) == (None, "")


@pytest.mark.parametrize(
    ("data", "event"),
    [
        ("é", Event("TEXT", "m:é".encode())),
        ("", Event("TEXT", b"m:")),
        (b"text", Event("TEXT", b"m:text")),
        (b"\xff", Event("BINARY", b"m:\xff")),
        ("\udc80", Event("TEXT", b"m:?")),
        ('c:{"type": "detach"}', Event("TEXT", b'm:c:{"type": "detach"}')),
    ],
)
def test_a_message_is_never_a_control_message(data: str | bytes, event: Event) -> None:
    assert build_message(data) == event


@pytest.mark.parametrize(
    ("said", "prefix"),
    [("", None), ("deflate", None), ("grip", "m:"), ('grip; message-prefix=""', "")],
)
def test_message_prefix(said: str, prefix: str | None) -> None:
    assert message_prefix(said) == prefix


def test_control_messages_are_json() -> None:
    said = build_control(type="send-delayed", message_type="ping")

    assert said.content.startswith(b"c:")
    assert parse_control(said.content) == {"type": "send-delayed", "message-type": "ping"}
    with pytest.raises(EventsError):
        parse_control(b"c:[]")
