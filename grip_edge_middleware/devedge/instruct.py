"""What a response tells a GRIP proxy, and what is published to it.

Pure: GRIP's formats, as Pushpin reads them. https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urljoin

from grip_edge_middleware.devedge.exchange import Answer
from grip_edge_middleware.grip import MIN_HOLD_TIMEOUT_S

HOLD_TIMEOUT_S = 55
KEEP_ALIVE_S = 55
NEXT_TIMEOUT_S = 120
# As in examples/edge/pushpin.conf; Pushpin's default is 20.
MAX_CHANNELS = 100
MAX_BODY_BYTES = 1_000_000

HoldMode = Literal["stream", "response"]
FORMATS = ("http-stream", "http-response", "ws-message")

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {"r": "\r", "n": "\n", "\\": "\\"}


class InstructError(ValueError):
    """A response whose instructions cannot be followed: the client gets a 502."""


class PublishError(ValueError):
    """A request to publish that is refused as a whole: a 400."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel that a client is subscribed to."""

    name: str
    prev_id: str | None = None
    filters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """What a silent client is sent, and how often."""

    content: bytes
    timeout_s: int = KEEP_ALIVE_S
    is_interval: bool = False
    """Sent also to who is not idle."""


@dataclass(frozen=True, slots=True)
class Instruct:
    """What to do with a client after the response."""

    hold: HoldMode | None = None
    channels: tuple[Channel, ...] = ()
    timeout_s: int = HOLD_TIMEOUT_S
    keep_alive: KeepAlive | None = None
    next_link: str = ""
    next_timeout_s: int = NEXT_TIMEOUT_S
    status: int | None = None

    @property
    def is_followed_at_once(self) -> bool:
        """Whether what comes next is asked for without a hold."""
        return self.hold is None and bool(self.next_link)

    @property
    def closes(self) -> bool:
        """Whether nobody could say what a client has missed: Pushpin does not hold it then."""
        return not self.next_link and any(channel.prev_id for channel in self.channels)


@dataclass(frozen=True, slots=True)
class Item:
    """One published item."""

    channel: str
    formats: Mapping[str, Mapping[str, Any]]
    id: str | None = None
    prev_id: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    is_in_order: bool = False
    """`no-seq`: whoever sends it sees to the order, so nothing is waited for."""


def parse_instruct(answer: Answer, uri: str) -> Instruct:
    """Read the `Grip-` headers of the answer to `uri`. InstructError says what is wrong."""
    hold = answer.says("grip-hold").strip().lower()
    if hold not in ("", "stream", "response"):
        raise InstructError(f"Grip-Hold: expected stream or response, got {hold!r}")
    keep_alive = answer.says("grip-keep-alive")
    next_link, next_timeout_s = _parse_link(answer.says("grip-link"), uri)
    return Instruct(
        hold=hold or None,  # type: ignore[arg-type]
        channels=parse_channels(answer.says("grip-channel"))[:MAX_CHANNELS],
        timeout_s=_parse_timeout(answer.says("grip-timeout")),
        keep_alive=_parse_keep_alive(keep_alive) if keep_alive else None,
        next_link=next_link,
        next_timeout_s=next_timeout_s,
        status=_parse_status(answer.says("grip-status")),
    )


def parse_channels(value: str) -> tuple[Channel, ...]:
    """Read `a; prev-id=1; filter=require-sub, b`."""
    channels = []
    for part in value.split(","):
        name, parameters = _parse_parameters(part)
        prev_id = next((v for k, v in parameters if k == "prev-id"), None)
        filters = tuple(v for k, v in parameters if k == "filter")
        if name:
            channels.append(Channel(name, prev_id, filters))
    return tuple(channels)


def _parse_parameters(part: str) -> tuple[str, list[tuple[str, str]]]:
    name, *parameters = part.split(";")
    pairs = (parameter.partition("=") for parameter in parameters)
    return name.strip(), [(key.strip(), value.strip()) for key, _, value in pairs]


def _parse_timeout(value: str) -> int:
    if not value:
        return HOLD_TIMEOUT_S
    return max(_number("Grip-Timeout", value), MIN_HOLD_TIMEOUT_S)


def _parse_keep_alive(value: str) -> KeepAlive:
    content, parameters = _parse_parameters(value)
    said = dict(parameters)
    mode = said.get("mode", "idle")
    if not content or mode not in ("idle", "interval"):
        raise InstructError(f"Grip-Keep-Alive: cannot read {value!r}")
    timeout_s = _number("Grip-Keep-Alive", said.get("timeout", str(KEEP_ALIVE_S)))
    decoded = _decode(content, said.get("format", "raw"))
    return KeepAlive(decoded, max(timeout_s, 1), mode == "interval")


def _decode(content: str, format_: str) -> bytes:
    if format_ == "raw":
        return content.encode("latin-1")
    if format_ == "cstring":
        return _ESCAPE.sub(_unescape, content).encode("latin-1")
    if format_ == "base64":
        return _from_base64(content, InstructError)
    raise InstructError(f"Grip-Keep-Alive: unknown format {format_!r}")


def _unescape(escape: re.Match[str]) -> str:
    code = escape[1]
    if code in _ESCAPED:
        return _ESCAPED[code]
    if len(code) == 3:
        return chr(int(code[1:], 16))
    raise InstructError(f"Grip-Keep-Alive: unknown escape \\{code}")


def _parse_link(value: str, uri: str) -> tuple[str, int]:
    found = re.match(r"\s*<([^>]*)>(.*)", value)
    if found is None:
        return "", NEXT_TIMEOUT_S
    said = dict(_parse_parameters(found[2])[1])
    if said.get("rel", "").strip('"') != "next":
        return "", NEXT_TIMEOUT_S
    timeout_s = _number("Grip-Link", said.get("timeout", str(NEXT_TIMEOUT_S)))
    return _target(urljoin(uri, found[1])), timeout_s


def _target(url: str) -> str:
    # The edge has one app: where a link is absolute, its host is that of the app.
    return re.sub(r"^[a-z]+://[^/]*", "", url) or "/"


def _parse_status(value: str) -> int | None:
    return _number("Grip-Status", value.split()[0]) if value.strip() else None


def _number(name: str, value: str) -> int:
    if value.strip().isdecimal():
        return int(value)
    raise InstructError(f"{name}: expected a number, got {value!r}")


def parse_items(body: bytes) -> list[Item]:
    """Read what is posted to `/publish/`. PublishError refuses all if one item is wrong."""
    if len(body) > MAX_BODY_BYTES:
        raise PublishError("Request body too large.")
    try:
        posted = json.loads(body)
    except (ValueError, RecursionError):
        raise PublishError("Body is not valid JSON.") from None
    items = posted.get("items") if isinstance(posted, dict) else None
    if not isinstance(items, list):
        raise PublishError("Body must have a list of items.")
    return [parse_item(item) for item in items]


def parse_item(item: object) -> Item:
    """Read one item. PublishError says what is wrong with it."""
    if not isinstance(item, dict) or not isinstance(item.get("channel"), str):
        raise PublishError("Invalid item: channel must be a string.")
    formats = item["formats"] if "formats" in item else {n: item[n] for n in FORMATS if n in item}
    if not isinstance(formats, dict) or not all(isinstance(f, dict) for f in formats.values()):
        raise PublishError("Invalid item: formats must be objects.")
    for name in ("id", "prev-id"):
        if not isinstance(item.get(name, ""), str):
            raise PublishError(f"Invalid item: {name} must be a string.")
    for name in FORMATS:
        content_of(formats.get(name, {}))
    return Item(
        item["channel"],
        formats,
        item.get("id"),
        item.get("prev-id"),
        dict(item.get("meta") or {}),
        bool(item.get("no-seq", False)),
    )


def content_of(format_: Mapping[str, Any], name: str = "content") -> bytes:
    """Return the content of a format, or its `body`, given as text or in base64."""
    text, binary = format_.get(name, ""), format_.get(f"{name}-bin")
    if isinstance(binary, str):
        return _from_base64(binary, PublishError)
    if not isinstance(text, str):
        raise PublishError(f"Invalid item: {name} must be a string.")
    return text.encode()


def _from_base64(value: str, error: type[ValueError]) -> bytes:
    try:
        return b64decode(value, validate=True)
    except ValueError:
        raise error("cannot read base64") from None
