"""Whether a path takes WebSockets, as a browser would ask: the handshake alone."""

from __future__ import annotations

import http.client
from base64 import b64encode
from collections.abc import Mapping
from contextlib import closing
from os import urandom
from urllib.parse import urlsplit

from grip_edge_middleware.cli.findings import Finding, ok, wrong
from grip_edge_middleware.errors import DeliveryError

SWITCHED = 101


def handshake(url: str, headers: Mapping[str, str], *, timeout_s: float) -> int:
    """Return the status of the answer. DeliveryError if there is none."""
    split = urlsplit(url)
    kind = http.client.HTTPSConnection if split.scheme == "https" else http.client.HTTPConnection
    connection = kind(split.hostname or "", split.port, timeout=timeout_s)
    asked = {
        **headers,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": b64encode(urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    target = split._replace(scheme="", netloc="", fragment="").geturl() or "/"
    with closing(connection):
        try:
            connection.request("GET", target, headers=asked)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise DeliveryError("probe", f"no answer to a WebSocket: {error}") from None


def judge_handshake(url: str, status: int) -> Finding:
    """Say what the answer means where a route has `hold` "ws"."""
    if status == SWITCHED:
        return ok(url, "opens a WebSocket")
    if status == 200:
        return wrong(
            url,
            "opens no WebSocket: the app is asked for a page",
            "add over_http to the path's line in Pushpin's routes, as docs/websockets.md says",
        )
    return wrong(
        url,
        f"opens no WebSocket: answered {status}",
        "does the app's log say why it is refused?",
    )
