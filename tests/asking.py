"""An app of counters behind either face, and how a test asks it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

from grip_edge_middleware import GripEdge

Ask = Callable[..., tuple[int, dict[str, str], bytes]]


NOTHING: Mapping[str, str] = {}


class Counters:
    """The same app for WSGI and ASGI: streams of values, and what a test makes of them."""

    def __init__(self) -> None:
        self.values = {"blue": 1, "red": 7, "": 3}
        self.fails = False
        self.headers: list[tuple[str, str]] = []
        self.during: Callable[[], None] = lambda: None

    def answer(self, path: str) -> tuple[int, bytes]:
        value = self.values.get(path.split("/")[2])
        self.during()
        if self.fails:
            return 500, b"oops"
        return (200, b"data: %d\n\n" % value) if value is not None else (404, b"gone")

    def wsgi(self, environ: Any, start_response: Any) -> list[bytes]:
        status, body = self.answer(environ["PATH_INFO"])
        start_response(f"{status} Status", [("Content-Type", "text/event-stream"), *self.headers])
        return [body]

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        status, body = self.answer(scope["path"].removeprefix(scope["root_path"]))
        headers = [(b"content-type", b"text/event-stream")]
        headers += [(name.lower().encode(), value.encode()) for name, value in self.headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def ask_wsgi(edge: GripEdge, counters: Counters) -> Ask:
    face = edge.wsgi(counters.wsgi)

    def ask(
        path: str,
        grip_last: str | None = None,
        mount: str = "",
        headers: Mapping[str, str] = NOTHING,
    ) -> Any:
        started: list[Any] = []
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": mount,
            "PATH_INFO": path,
            "HTTP_ACCEPT": "*/*",
        }
        if grip_last is not None:
            environ["HTTP_GRIP_LAST"] = grip_last
        for name, value in headers.items():
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value

        def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
            started.append((status, headers))
            return bytes

        body = b"".join(face(environ, start_response))
        [(status, lines)] = started
        return int(status[:3]), {name.lower(): value for name, value in lines}, body

    return ask


def ask_asgi(edge: GripEdge, counters: Counters) -> Ask:
    face = edge.asgi(counters.asgi)

    def ask(
        path: str,
        grip_last: str | None = None,
        mount: str = "",
        headers: Mapping[str, str] = NOTHING,
    ) -> Any:
        sent: list[Any] = []
        encoded = [(b"accept", b"*/*")]
        # One line for each channel, as Pushpin sends them.
        encoded += [(b"grip-last", part.encode()) for part in (grip_last or "").split(", ") if part]
        encoded += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": "GET",
            "path": mount + path,
            "root_path": mount,
            "headers": encoded,
        }

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(face(scope, receive, send))  # type: ignore[arg-type]
        start, *bodies = sent
        lines = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], lines, b"".join(m.get("body", b"") for m in bodies)

    return ask


def link_of(headers: dict[str, str]) -> str:
    found = re.fullmatch(r"<(.*)>; rel=next; timeout=600", headers["grip-link"])
    assert found is not None
    return found[1]


def version_of(headers: dict[str, str]) -> str:
    return headers["grip-channel"].rpartition("prev-id=")[2]
