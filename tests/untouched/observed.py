"""What a server sees of an app, and what of that may differ because of the edge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

from tests.untouched.cases import Case, Lines

# The headers that are ours, on configured routes.
OURS = {"cache-control", "surrogate-control", "cdn-cache-control", "expires", "surrogate-key"}

EXTENSIONS = ("early_hint", "pathsend", "trailers")


@dataclass
class Observed:
    """An answer as it arrives."""

    starts: list[tuple[object, Lines]] = field(default_factory=list)
    """Each status, or what else a message has, and the headers.

    There are several if an error page replaced the first.
    """
    chunks: list[object] = field(default_factory=list)
    """What came of the body, each by itself; under ASGI, whole messages."""
    before: list[object] = field(default_factory=list)
    """Messages before the start."""
    error: str = ""
    """What reached the server."""

    def without_ours(self, case: Case) -> Observed:
        """Return all but what the edge may say."""
        return replace(self, starts=[(s, _others(lines, case)) for s, lines in self.starts])

    def ours(self, case: Case) -> Lines:
        """Return what the edge may have said, in the end."""
        lines = self.starts[-1][1] if self.starts else []
        others = _others(lines, case)
        return [line for line in lines if line not in others]


def _others(lines: Lines, case: Case) -> Lines:
    if not case.is_matched:
        return lines
    # A route that depends on Accept says so. A long-poll has a tag, unless it has one.
    ours = OURS | ({"vary"} if case.route == "both" else set())
    if case.route == "poll" and "etag" not in {name.lower() for name, _ in case.lines}:
        ours |= {"etag"}
    return [
        (name, value)
        for name, value in lines
        if name.lower() not in ours and not name.lower().startswith("grip-")
    ]


def observe_wsgi(app: Any, case: Case, *, is_valid: bool = True) -> Observed:
    """Ask an app as a server does, under the eyes of `wsgiref.validate`."""
    observed = Observed()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": case.method,
        "PATH_INFO": case.path,
        "QUERY_STRING": "",
        "HTTP_ACCEPT": case.accept,
    }
    setup_testing_defaults(environ)
    environ["SCRIPT_NAME"] = ""

    def start_response(status: str, lines: Lines, exc_info: Any = None) -> Any:
        if exc_info and observed.chunks:
            raise exc_info[1].with_traceback(exc_info[2])
        observed.starts.append((status, list(lines)))
        return observed.chunks.append

    try:
        result = (validator(app) if is_valid else app)(environ, start_response)
        try:
            for number, chunk in enumerate(result):
                if number == case.takes:
                    break
                observed.chunks.append(chunk)
        finally:
            if hasattr(result, "close"):
                result.close()
    except Exception as error:
        observed.error = repr(error)
    return observed


async def observe_asgi(app: Callable[..., Awaitable[None]], case: Case) -> Observed:
    """Ask an app as a server does, and look whether its messages come in order."""
    observed = Observed()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": case.method,
        "scheme": "http",
        "path": case.path,
        "raw_path": case.path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"accept", case.accept.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
        "state": {},
        "extensions": {f"http.response.{name}": {} for name in EXTENSIONS},
    }
    is_gone = asyncio.Event()
    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in asked:
            return message
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not observed.starts, "started twice"
            lines = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
            rest = {name: value for name, value in message.items() if name != "headers"}
            observed.starts.append((rest, lines))
        elif not observed.starts:
            assert message["type"] == "http.response.early_hint", message
            observed.before.append(message)
        elif case.takes is not None and len(observed.chunks) >= case.takes:
            is_gone.set()
            raise OSError("the client is gone")
        else:
            observed.chunks.append(message)

    try:
        await app(scope, receive, send)
    except Exception as error:
        observed.error = repr(error)
    is_gone.set()
    _check_order(observed)
    return observed


def _check_order(observed: Observed) -> None:
    bodies: list[Any] = [m for m in observed.chunks if is_body(m)]
    assert all(message.get("more_body") for message in bodies[:-1]), "something after the end"
    assert observed.chunks[: len(bodies)] == bodies, "trailers before the end"


def is_body(message: Any) -> bool:
    return message["type"] in ("http.response.body", "http.response.pathsend")
