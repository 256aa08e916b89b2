"""What the apps have in common: their settings, what they count, and a body that can be held up.

An app answers `/counters/{name}` (a stream, and a POST that changes it), `/views/{name}` by an
async view, `/polled/{name}` (a long-poll), `/unchanged/{name}` (another, to which the app says
304), `/rooms/{name}` (a WebSocket), `/bodies/{name}` (a body in two chunks; a POST lets the second
go) and `/plain/{name}`, of which the settings know nothing.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

from grip_edge_middleware.types import Hold
from tests.recording import DEADLINE_S

NEVER_S = 3600.0
VERIFY_KEY = "the-key-of-a-proxy-that-is-for-tests-only"
HAS_WEBSOCKETS = "ws" in get_args(Hold)
EVENT_STREAM = "text/event-stream"

TOPICS: dict[str, Any] = {
    "counter-{name}": {"routes": ["/counters/{name}"], "hold": "stream", "throttle": NEVER_S},
    "view-{name}": {"routes": ["/views/{name}"], "hold": None, "edge_ttl": 60, "browser_ttl": 5},
    "polled-{name}": {"routes": ["/polled/{name}"], "hold": "response"},
    "unchanged-{name}": {"routes": ["/unchanged/{name}"], "hold": "response"},
    "body-{name}": {"routes": ["/bodies/{name}"], "hold": None},
}
if HAS_WEBSOCKETS:
    TOPICS["room-{name}"] = {"routes": ["/rooms/{name}"], "hold": "ws"}

# The test says where the recorded CDN and GRIP proxy is.
PORT = os.environ.get("RECORDING_PORT", "9")
GRIP_EDGE: dict[str, Any] = {
    "cdn": f"varnish://127.0.0.1:{PORT}",
    "grip_url": f"http://127.0.0.1:{PORT}?verify-key={VERIFY_KEY}",
    "confirm_after": 0,
    "topics": TOPICS,
}
if HAS_WEBSOCKETS:
    GRIP_EDGE["secret"] = "32 random characters, or more of them"

counters: Counter[str] = Counter()
"""Enough for one process."""

may_go_on = threading.Event()
# Shorter than a client waits, so that a body that is kept back says so.
WAITS_S = DEADLINE_S / 2
TOO_LATE = b"nobody had the first\n"


def shown(name: str) -> str:
    """Return a counter as a server-sent event."""
    return f"data: {counters[name]}\n\n"


def two_chunks() -> Iterator[bytes]:
    """Yield a chunk, and another when there was a POST."""
    yield b"first\n"
    yield b"second\n" if may_go_on.wait(WAITS_S) else TOO_LATE


async def two_chunks_async() -> AsyncIterator[bytes]:
    """Do the same."""
    yield b"first\n"
    yield b"second\n" if await asyncio.to_thread(may_go_on.wait, WAITS_S) else TOO_LATE
