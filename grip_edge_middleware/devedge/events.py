"""WebSocket-over-HTTP: what a client and its app say to each other, as bodies of requests.

Pure. https://pushpin.org/docs/protocols/websocket-over-http/
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from grip_edge_middleware.devedge.exchange import Answer

CONTENT_TYPE = "application/websocket-events"
# What messages of the app begin with, unless it says otherwise.
MESSAGE_PREFIX = "m:"
CONTROL_PREFIX = b"c:"
_HAVE_CONTENT = frozenset({"TEXT", "BINARY", "PING", "PONG", "CLOSE"})


class EventsError(ValueError):
    """A body that is no list of events."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, of either side."""

    type: str
    content: bytes = b""


def build_events(events: Iterable[Event]) -> bytes:
    """Return the body that says these events."""
    return b"".join(_build_event(event) for event in events)


def _build_event(event: Event) -> bytes:
    if event.type not in _HAVE_CONTENT or (event.type == "CLOSE" and not event.content):
        return f"{event.type}\r\n".encode()
    head = f"{event.type} {len(event.content):x}\r\n".encode()
    return head + event.content + b"\r\n"


def parse_events(body: bytes) -> list[Event]:
    """Read a body. EventsError if it cannot be read."""
    events = []
    while body:
        head, end, body = body.partition(b"\r\n")
        type_, _, size = head.decode("latin-1").partition(" ")
        if not end or not type_.isalpha():
            raise EventsError(f"no event: {head[:40]!r}")
        content = b""
        if size:
            content, body = _split(body, size)
        events.append(Event(type_.upper(), content))
    return events


def _split(body: bytes, size: str) -> tuple[bytes, bytes]:
    try:
        length = int(size, 16)
    except ValueError:
        raise EventsError(f"no length: {size[:40]!r}") from None
    content, end, rest = body[:length], body[length : length + 2], body[length + 2 :]
    if end != b"\r\n":
        raise EventsError("the content is shorter or longer than it says")
    return content, rest


def message_prefix(answer: Answer) -> str | None:
    """Return what messages of the app begin with; None if it does not speak of GRIP."""
    name, *parameters = answer.says("sec-websocket-extensions").split(";")
    if name.strip() != "grip":
        return None
    pairs = (parameter.strip().partition("=") for parameter in parameters)
    said = {key: value.strip('"') for key, _, value in pairs}
    return said.get("message-prefix", MESSAGE_PREFIX)


def parse_control(content: bytes) -> dict[str, Any]:
    """Read a control message of the app: `c:{"type": "subscribe", "channel": "c"}`."""
    try:
        message = json.loads(content.removeprefix(CONTROL_PREFIX))
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise EventsError("a control message is no JSON object")
    return message
