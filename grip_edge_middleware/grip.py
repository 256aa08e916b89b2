"""GRIP as it goes over the wire: where a proxy is, which headers hold a response, what an item is.

The formats come from gripcontrol, and this is the only file that imports it. Its network client
is not used: it has no timeout, its errors vanish, and it is dead after a fork.

https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from gripcontrol import HttpResponseFormat, HttpStreamFormat, parse_grip_uri
from pubcontrol import Item

from grip_edge_middleware.http import Response
from grip_edge_middleware.types import Headers, Hold

# Pushpin keeps the first 20 and drops the rest (connection_subscription_max in pushpin.conf).
MAX_CHANNELS = 20

NEXT_LINK = "/.grip-edge/next/"
NEXT_LINKS = 8
# The end of a version that confirms another: what it shows is the same.
CONFIRMED = ".c"
# A backstop: who missed something is told by the next item or the confirmation. When it ends, all
# idle clients ask together.
NEXT_LINK_TIMEOUT_S = 600
# For who may hold an old page, and no item is to come that says so.
CATCH_UP_SOON_S = 1

# No user and password, which would show in logs.
_BASE_URL = re.compile(
    r"https?://([\w.-]+|\[[\da-f:]+\])(:\d{1,5})?(/[\w./~-]*)?(\?|#|$)", re.IGNORECASE
)
_URL_PARAMETERS = ("iss", "key", "verify-iss", "verify-key")

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
            _check_base64(name, value)
    if split.path.rstrip("/").endswith("/publish"):
        raise ValueError("expected the proxy's base URL, without /publish")
    parsed = parse_grip_uri(url.partition("#")[0])
    if "control_iss" in parsed and "key" not in parsed:
        raise ValueError("iss is given without key, so requests cannot be signed")
    if "control_iss" not in parsed and not _is_token(parsed.get("key", "")):
        raise ValueError("key without iss is sent as it is, so it must be visible ASCII")
    return Proxy(**parsed)


def _is_token(key: str | bytes) -> bool:
    token = key.decode("latin-1") if isinstance(key, bytes) else key
    return all("!" <= character <= "~" for character in token)


def has_port(split: SplitResult) -> bool:
    """Whether the port of a URL, if it names one, can be one."""
    try:
        return split.port != 0
    except ValueError:
        return False


def _check_base64(name: str, value: str) -> None:
    if not value.startswith("base64:"):
        return
    try:
        b64decode(value.removeprefix("base64:"), validate=True)
    except Base64Error:
        raise ValueError(f"{name} says base64: and is not valid base64") from None


def hold_headers(
    hold: Hold,
    channels: Mapping[str, str | None],
    *,
    next_link: str = "",
    next_link_timeout_s: int = NEXT_LINK_TIMEOUT_S,
    keep_alive_s: int = 0,
) -> Headers:
    """Return the headers that make a GRIP proxy keep the response open on these channels.

    `channels` gives the version that the response shows of each, or None where nobody asks: a proxy
    closes a stream with a version and no `next_link`. Without an item it asks that after
    `next_link_timeout_s`. `keep_alive_s` sends an event-stream comment after that many idle
    seconds; 0 sends none.
    """
    named = [n if v is None else f"{n}; prev-id={v}" for n, v in channels.items()]
    headers = [("Grip-Hold", hold), ("Grip-Channel", ", ".join(named))]
    if next_link:
        headers.append(("Grip-Link", f"<{next_link}>; rel=next; timeout={next_link_timeout_s}"))
    if hold == "stream" and keep_alive_s:
        headers.append(("Grip-Keep-Alive", rf":\n\n; format=cstring; timeout={keep_alive_s}"))
    return headers


def next_link(names: Iterable[str], mount: str = "") -> str:
    """Return the next link of a page that shows these topics.

    One of a few URIs for all topics: a proxy asks for ten URIs a second, for up to a hundred
    clients each, and what it has to deliver waits meanwhile.
    """
    digest = blake2b(" ".join(sorted(names)).encode(), digest_size=1).digest()[0]
    return f"{mount}{NEXT_LINK}{digest % NEXT_LINKS}"


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
    that does not have `prev_id` asks its next link instead.
    """
    formats = [_FORMATS[hold](message) for hold, message in messages.items()]
    item: dict[str, Any] = Item(formats, id=id, prev_id=prev_id).export(formats_field=True)
    return {"channel": channel, **item}


def _stream_format(message: Response) -> HttpStreamFormat:
    # What is gone has nothing more to say; a client that reconnects gets the app's own answer.
    if message.status != 200:
        return HttpStreamFormat(close=True)
    return HttpStreamFormat(content=message.body)


def _response_format(message: Response) -> HttpResponseFormat:
    headers = {n.title(): v for n, v in message.headers.items() if n in _RESPONSE_HEADERS}
    return HttpResponseFormat(code=message.status, headers=headers, body=message.body)


_FORMATS = {"stream": _stream_format, "response": _response_format}
