"""WebSocket-over-HTTP: what a client and its app say to each other, as bodies of requests.

Not gripcontrol's reader, which takes what is cut short and lengths below zero. Pure.

https://pushpin.org/docs/protocols/websocket-over-http/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

CONTENT_TYPE = "application/websocket-events"
# What messages of the app begin with, unless it says otherwise.
MESSAGE_PREFIX = "m:"
CONTROL_PREFIX = b"c:"
_HAVE_CONTENT = frozenset({"TEXT", "BINARY", "PING", "PONG", "CLOSE"})
_LENGTH = re.compile(r"[0-9a-fA-F]{1,8}")


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
    start = 0
    while start < len(body):
        end = body.find(b"\r\n", start)
        head = body[start : max(end, start)].decode("latin-1")
        type_, separator, size = head.partition(" ")
        if end < 0 or not (type_.isascii() and type_.isalpha()):
            raise EventsError(f"no event: {body[start : start + 40]!r}")
        start = end + 2
        content = b""
        if separator:
            content = _content(body, start, size)
            start += len(content) + 2
        events.append(Event(type_.upper(), content))
    return events


def _content(body: bytes, start: int, size: str) -> bytes:
    if not _LENGTH.fullmatch(size):
        raise EventsError(f"no length: {size[:40]!r}")
    end = start + int(size, 16)
    if body[end : end + 2] != b"\r\n":
        raise EventsError("the content is shorter or longer than it says")
    return body[start:end]


def build_close(code: int, reason: str = "") -> Event:
    """Return the event that closes, for a reason of at most 123 bytes."""
    # https://www.rfc-editor.org/rfc/rfc6455#section-5.5: 125 bytes in all.
    said = reason.encode(errors="replace")[:123].decode(errors="ignore").encode()
    return Event("CLOSE", code.to_bytes(2, "big") + said)


def parse_close(event: Event) -> tuple[int | None, str]:
    """Return the code of a CLOSE, None if it says none, and its reason."""
    if len(event.content) < 2:
        return None, ""
    return int.from_bytes(event.content[:2], "big"), event.content[2:].decode(errors="replace")


def build_message(data: str | bytes) -> Event:
    """Return what a client is sent: text, or bytes that are none."""
    prefix = MESSAGE_PREFIX.encode()
    if isinstance(data, str):
        return Event("TEXT", prefix + data.encode(errors="replace"))
    try:
        data.decode()
    except UnicodeDecodeError:
        return Event("BINARY", prefix + data)
    return Event("TEXT", prefix + data)


def build_control(**message: object) -> Event:
    """Return a control message, which the proxy obeys and the client does not see."""
    named = {name.replace("_", "-"): value for name, value in message.items()}
    return Event("TEXT", CONTROL_PREFIX + json.dumps(named).encode())


def message_prefix(extensions: str) -> str | None:
    """Return what messages of the app begin with; None if it does not speak of GRIP.

    `extensions` is its `Sec-WebSocket-Extensions`.
    """
    name, *parameters = extensions.split(";")
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
