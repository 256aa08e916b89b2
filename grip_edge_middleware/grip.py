"""GRIP as it goes over the wire: where a proxy is, which headers hold a response, what an item is.

The formats come from gripcontrol, and this is the only file that imports it. Its network client
is not used: it has no timeout, its errors vanish, and it is dead after a fork.

https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, get_args
from urllib.parse import SplitResult, parse_qs, urlsplit

from gripcontrol import (
    HttpResponseFormat,
    HttpStreamFormat,
    WebSocketMessageFormat,
    parse_grip_uri,
)
from pubcontrol import Item

from grip_edge_middleware.http import Response
from grip_edge_middleware.types import Headers, Hold

# Pushpin keeps the first 20 and drops the rest (connection_subscription_max in pushpin.conf).
MAX_CHANNELS = 20

NEXT_LINK = "/.grip-edge/next/"
NEXT_LINKS = 8
PRIVATE_NEXT_LINK = f"{NEXT_LINK}private/"
# The end of a version that confirms another: what it shows is the same.
CONFIRMED = ".c"
# A channel of nobody: `%n` never arises from escaping.
NOBODY = "%nobody"
# A backstop: who missed something is told by the next item or the confirmation. When it ends, all
# idle clients ask together.
NEXT_LINK_TIMEOUT_S = 600
# What Pushpin takes a shorter one for.
MIN_HOLD_TIMEOUT_S = 5
# For who may hold an old page, and no item is to come that says so.
CATCH_UP_SOON_S = 1

# No user and password, which would show in logs.
_BASE_URL = re.compile(
    r"https?://([\w.-]+|\[[\da-f:]+\])(:\d{1,5})?(/[\w./~-]*)?(\?|#|$)", re.IGNORECASE
)
# In examples/edge/ and of the embedded edge, so everybody knows it.
SHIPPED_VERIFY_KEY = "change-me-to-32-or-more-random-bytes"
# Fastly Fanout signs with this key for all services; the issuer tells them apart.
# https://github.com/fanout/js-grip: PUBLIC_KEY_FASTLY_FANOUT_JWK
FASTLY_VERIFY_KEY = (
    '{"kty":"EC","crv":"P-256","x":"CKo5A1ebyFcnmVV8SE5On-8G81JyBjSvcrx4VLetWCg",'
    '"y":"7gwJqaU6N8TP88--twjkwoB36f-pT3QsmI46nPhjO7M"}'
)
_FASTLY_SERVICE = re.compile(r"https://api\.fastly\.com/service/(\w+)", re.IGNORECASE)
_URL_PARAMETERS = ("iss", "key", "verify-iss", "verify-key")

FORMATS: tuple[Hold, ...] = get_args(Hold)
"""What an item can be to a client."""

# What a published response overrides: the client gets the other headers of the held response.
_RESPONSE_HEADERS = ("content-type", "etag", "last-modified")


@dataclass(frozen=True, slots=True)
class Proxy:
    """One GRIP proxy, as a `GRIP_URL` names it. Keys are left out of `repr`."""

    control_uri: str
    control_iss: str | None = None
    key: str | bytes | None = field(default=None, repr=False)
    verify_iss: str | None = None
    verify_key: str | bytes | None = field(default=None, repr=False)


def parse_grip_url(url: str) -> Proxy:
    """Parse a `GRIP_URL` such as `http://localhost:5561?iss=realm&key=base64:...`.

    Fastly's name the service already, so their `verify-iss` and `verify-key` may be left out.
    ValueError says what is wrong, without repeating a key.
    """
    split = urlsplit(url) if _BASE_URL.match(url) else None
    if split is None or not has_port(split):
        raise ValueError("expected http://host:port or https://host/path, with ?iss=...&key=...")
    # As gripcontrol reads it: "+" is part of a key in base64, not a space.
    query = parse_qs(split.query.replace("+", "%2B"), keep_blank_values=True)
    for name, values in query.items():
        if name not in _URL_PARAMETERS:
            # Not repeated: after an "&" that was not escaped, it is a part of a key.
            known = ", ".join(_URL_PARAMETERS)
            raise ValueError(f"a parameter is none of {known} (is an & in a key escaped as %26?)")
        for value in values:
            if not decode_key(name, value) and name == "verify-key":
                raise ValueError("verify-key is empty")
    if split.path.rstrip("/").endswith("/publish"):
        raise ValueError("expected the proxy's base URL, without /publish")
    parsed = parse_grip_uri(url.partition("#")[0])
    if "control_iss" in parsed and "key" not in parsed:
        raise ValueError("iss is given without key, so requests cannot be signed")
    if "control_iss" not in parsed and not _is_token(parsed.get("key", "")):
        raise ValueError("key without iss is sent as it is, so it must be visible ASCII")
    return _with_fastlys_key(Proxy(**parsed))


def _is_token(key: str | bytes) -> bool:
    token = key.decode("latin-1") if isinstance(key, bytes) else key
    return all("!" <= character <= "~" for character in token)


def has_port(split: SplitResult) -> bool:
    """Whether the port of a URL, if it names one, can be one."""
    try:
        return split.port != 0
    except ValueError:
        return False


def decode_key(name: str, value: str) -> str | bytes:
    """Return a key as it is, or what it says in `base64:`. ValueError repeats `name` only."""
    if not value.startswith("base64:"):
        return value
    try:
        return b64decode(value.removeprefix("base64:"), validate=True)
    except ValueError:
        raise ValueError(f"{name} says base64: and is not valid base64") from None


def _with_fastlys_key(proxy: Proxy) -> Proxy:
    service = _FASTLY_SERVICE.fullmatch(proxy.control_uri)
    iss = proxy.verify_iss or (f"fastly:{service[1]}" if service else None)
    if iss is None or not iss.startswith("fastly:"):
        return proxy
    return replace(proxy, verify_iss=iss, verify_key=proxy.verify_key or FASTLY_VERIFY_KEY)


def stream_headers(
    channels: Mapping[str, str | None],
    *,
    next_link: str = "",
    next_link_timeout_s: int = NEXT_LINK_TIMEOUT_S,
    keep_alive_s: int = 0,
) -> Headers:
    """Return the headers that make a GRIP proxy stream on with what is published.

    `channels` gives the version that the response shows of each, or None where nobody asks: a proxy
    closes a stream with a version and no `next_link`. Without an item it asks that after
    `next_link_timeout_s`. `keep_alive_s` sends an event-stream comment after that many idle
    seconds; 0 sends none.
    """
    headers = [("Grip-Hold", "stream"), ("Grip-Channel", _channels(channels))]
    if next_link:
        headers.append(("Grip-Link", f"<{next_link}>; rel=next; timeout={next_link_timeout_s}"))
    if keep_alive_s:
        headers.append(("Grip-Keep-Alive", rf":\n\n; format=cstring; timeout={keep_alive_s}"))
    return headers


def long_poll_headers(channels: Mapping[str, str | None], *, timeout_s: int) -> Headers:
    """Return the headers that make a GRIP proxy answer with what is published next.

    Until `timeout_s` have passed: then the client gets the held response itself. A channel with a
    version has the filter that keeps its markers silent.
    """
    return [
        ("Grip-Hold", "response"),
        ("Grip-Channel", _channels(channels, "; filter=require-sub")),
        ("Grip-Timeout", str(timeout_s)),
    ]


def _channels(channels: Mapping[str, str | None], also: str = "") -> str:
    named = (n if v is None else f"{n}; prev-id={v}{also}" for n, v in channels.items())
    return ", ".join(named)


def etag(versions: Iterable[str]) -> str:
    """Return the entity tag of a response that shows these versions of its topics."""
    shown = [shown_by(version) for version in versions]
    if len(shown) == 1:
        return f'"{shown[0]}"'  # as what is published on one channel says
    return f'"{blake2b("-".join(shown).encode(), digest_size=16).hexdigest()}"'


def shown_by(version: str) -> str:
    """Return the version of what a version shows: a confirmation shows what it confirms."""
    return version.partition(CONFIRMED)[0]


def next_link(names: Iterable[str], mount: str = "") -> str:
    """Return the next link of a page that shows these topics.

    One of a few URIs for all topics: a proxy asks for ten URIs a second, for up to a hundred
    clients each, and what it has to deliver waits meanwhile.
    """
    digest = blake2b(" ".join(sorted(names)).encode(), digest_size=1).digest()[0]
    return f"{mount}{NEXT_LINK}{digest % NEXT_LINKS}"


def private_next_link(names: Iterable[str], secret: str, mount: str = "") -> str:
    """Return the next link of a page that not everybody may see.

    It is signed, so that a topic's name alone is not enough to ask for it. A proxy shares the
    answers of a path, so each set of topics has its own.
    """
    message = " ".join(sorted(names)).encode()
    return f"{mount}{PRIVATE_NEXT_LINK}{hmac.digest(secret.encode(), message, 'sha256').hex()}"


def parse_grip_last(value: str) -> dict[str, str]:
    """Return the last version of each channel in a `Grip-Last`: `c; last-id=1, d; last-id=2`.

    The names are ours, which contain neither comma nor semicolon.
    """
    last = {}
    for part in value.split(","):
        name, _, parameter = part.partition(";")
        key, _, version = parameter.strip().partition("=")
        if name.strip() and key == "last-id":
            last[name.strip()] = version.strip()
    return last


def build_item(
    channel: str,
    messages: Mapping[Hold, Response],
    *,
    id: str,  # noqa: A002 - GRIP's name
    prev_id: str | None = None,
) -> dict[str, Any]:
    """Return what is published on a channel, with a format for each kind of hold.

    A proxy drops an item whose `id` it has had in the last minute, so a retry is harmless. A client
    that does not have `prev_id` asks its next link instead. At once: a proxy would wait for an item
    that is missing, for five seconds, but ours come in order, so it is lost.
    """
    formats = [_FORMATS[hold](message, id) for hold, message in messages.items()]
    return _item(channel, formats, id, prev_id)


def build_stray(
    channel: str,
    messages: Mapping[Hold, Response],
    *,
    id: str | None = None,  # noqa: A002 - GRIP's name
    prev_id: str | None = None,
) -> dict[str, Any]:
    """Return an item that is none of an edge's own: its place among these may be unknown.

    To who is held with a `prev-id`, an item without that one says only that something was missed;
    and one without an `id` has the proxy lose track of what they have.
    """
    tag = id or blake2b(b"".join(m.body for m in messages.values()), digest_size=16).hexdigest()
    formats = [_FORMATS[kind](message, tag) for kind, message in messages.items()]
    return _item(channel, formats, id, prev_id)


def build_marker(
    channel: str,
    holds: Collection[Hold],
    *,
    id: str,  # noqa: A002 - GRIP's name
    prev_id: str,
) -> dict[str, Any]:
    """Return an item that says nothing to who has `prev_id`, and has the others ask what they miss.

    A stream gets no bytes. A long-poll goes on, since it has the filter `require-sub` and nobody
    subscribes to what the marker requires; where a proxy has no such filter, it ends as unchanged.
    """
    formats = [_MARKERS[hold] for hold in holds if hold in _MARKERS]
    marker = _item(channel, formats, id, prev_id)
    return marker | {"meta": {"require_sub": NOBODY}} if "response" in holds else marker


def _item(
    channel: str, formats: list[Any], version: str | None, prev_id: str | None
) -> dict[str, Any]:
    item: dict[str, Any] = Item(formats, id=version, prev_id=prev_id).export(formats_field=True)
    return {"channel": channel, "no-seq": True, **item}


def _stream_format(message: Response, version: str) -> HttpStreamFormat:
    # What is gone has nothing more to say; a client that reconnects gets the app's own answer.
    if message.status != 200:
        return HttpStreamFormat(close=True)
    return HttpStreamFormat(content=message.body)


def _response_format(message: Response, version: str) -> HttpResponseFormat:
    # Always a tag: else the client would take the old one for that of the new response.
    headers = {"Etag": etag([version])}
    headers |= {n.title(): v for n, v in message.headers.items() if n in _RESPONSE_HEADERS}
    return HttpResponseFormat(code=message.status, headers=headers, body=message.body)


def _socket_format(message: Response, version: str) -> WebSocketMessageFormat:
    # As a stream's: a client that connects again gets the app's own answer.
    if message.status != 200:
        return WebSocketMessageFormat(action="close", code=1000)
    try:
        return WebSocketMessageFormat(content=message.body.decode())
    except UnicodeDecodeError:
        return WebSocketMessageFormat(content=message.body, binary=True)


_FORMATS: Mapping[Hold, Callable[[Response, str], Any]] = {
    "stream": _stream_format,
    "response": _response_format,
    "ws": _socket_format,
}
# To a WebSocket it says nothing: that is asked for by its own request.
_MARKERS: Mapping[Hold, Any] = {
    "stream": HttpStreamFormat(content=""),
    "response": HttpResponseFormat(code=304),
}
