"""WebSocket-over-HTTP, read both ways."""

from __future__ import annotations

import pytest

from grip_edge_middleware.devedge.events import (
    Event,
    EventsError,
    build_events,
    message_prefix,
    parse_control,
    parse_events,
)
from grip_edge_middleware.devedge.exchange import Answer


@pytest.mark.parametrize(
    ("events", "body"),
    [
        ([], b""),
        ([Event("OPEN")], b"OPEN\r\n"),
        ([Event("TEXT", b"hello")], b"TEXT 5\r\nhello\r\n"),
        ([Event("BINARY", b"\r\n" * 8)], b"BINARY 10\r\n" + b"\r\n" * 8 + b"\r\n"),
        ([Event("OPEN"), Event("CLOSE", b"\x03\xe8")], b"OPEN\r\nCLOSE 2\r\n\x03\xe8\r\n"),
        ([Event("TEXT"), Event("DISCONNECT")], b"TEXT 0\r\n\r\nDISCONNECT\r\n"),
    ],
)
def test_events_and_bodies(events: list[Event], body: bytes) -> None:
    assert build_events(events) == body
    assert parse_events(body) == events


@pytest.mark.parametrize("body", [b"TEXT", b"TEXT x\r\n", b"TEXT 9\r\nshort\r\n", b"<html>\r\n"])
def test_what_is_no_event_is_an_error(body: bytes) -> None:
    with pytest.raises(EventsError):
        parse_events(body)


@pytest.mark.parametrize(
    ("said", "prefix"),
    [("", None), ("deflate", None), ("grip", "m:"), ('grip; message-prefix=""', "")],
)
def test_message_prefix(said: str, prefix: str | None) -> None:
    assert message_prefix(Answer(200, [("sec-websocket-extensions", said)])) == prefix


def test_control_messages_are_json() -> None:
    assert parse_control(b'c:{"type": "detach"}') == {"type": "detach"}
    with pytest.raises(EventsError):
        parse_control(b"c:[]")
