"""Requests and what an app answers to them: generated, the same five hundred in each run."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

Kind = Literal["list", "generator", "late generator", "file", "written"]
Fails = Literal["never", "before the start", "after the start", "in the body", "replaced", "late"]
Lines = list[tuple[str, str]]

COUNT = 500
LARGEST = 1_000_000

TOPICS: dict[str, Any] = {
    "stream-{name}": {"routes": ["/stream/{name}"], "hold": "stream"},
    "poll-{name}": {"routes": ["/poll/{name}"], "hold": "response"},
    "page-{name}": {"routes": ["/page/{name}"], "hold": None},
    "both-{name}": {
        "routes": [{"path": "/both/{name}", "accept": "text/event-stream"}],
        "hold": "stream",
    },
    "own-{name}": {"routes": ["/own/{name}"], "hold": "stream", "private": True},
}
SETTINGS: dict[str, Any] = {
    "cdn": "varnish://127.0.0.1:9",
    "grip_url": "http://127.0.0.1:9?verify-key=the-key-of-a-proxy-that-is-for-tests-only",
    "secret": "32 random characters, or more of them",
    "topics": TOPICS,
}
# The last of which the settings know nothing.
KINDS_OF_ROUTE = ("stream", "poll", "page", "both", "own", "plain", "plain")


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and what becomes of it."""

    number: int
    route: str
    method: str
    accept: str
    status: int
    lines: tuple[tuple[str, str], ...]
    chunks: tuple[bytes, ...]
    kind: Kind
    fails: Fails
    fails_at: int
    """How many chunks there are before."""
    takes: int | None
    """How many chunks the client takes before it goes; None if all."""
    has_hints: bool
    has_trailers: bool

    @property
    def path(self) -> str:
        return f"/{self.route}/{self.number}"

    @property
    def is_matched(self) -> bool:
        return self.route != "plain"

    def __str__(self) -> str:
        return (
            f"case {self.number}: {self.method} {self.path}, {self.status}, {self.kind} of "
            f"{[len(chunk) for chunk in self.chunks]}, fails {self.fails}, takes {self.takes}"
        )


class Failure(Exception):  # noqa: N818 - as in "it fails"
    """The app's own."""


def cases() -> Iterator[Case]:
    random = Random(20261125)
    return (_case(number, random) for number in range(COUNT))


def _case(number: int, random: Random) -> Case:
    status = random.choice([200] * 12 + [201, 204, 206, 301, 304, 404, 404, 500])
    body = b"" if status in (204, 304) else _body(random)
    lines = _lines(status, body, random)
    if ("Content-Encoding", "gzip") in lines:
        body = gzip.compress(body, 1)
    if random.random() < 0.5 and status not in (204, 304):
        lines.append(("Content-Length", str(len(body))))
    chunks = _chunks(body, random)
    return Case(
        number,
        route=random.choice(KINDS_OF_ROUTE),
        method=random.choice(["GET"] * 8 + ["HEAD", "POST"]),
        accept=random.choice(["*/*", "text/event-stream", ""]),
        status=status,
        lines=tuple(lines),
        chunks=chunks,
        kind=random.choice(("list", "generator", "late generator", "file", "written")),
        fails=random.choice(
            ("never",) * 8
            + ("before the start", "after the start", "in the body", "replaced", "late")
        ),
        fails_at=random.randint(0, len(chunks)),
        takes=random.choice([None, None, None, random.randint(0, len(chunks))]),
        has_hints=random.random() < 0.2,
        has_trailers=random.random() < 0.2,
    )


def _body(random: Random) -> bytes:
    largest = random.choice([0, 10, 100, 1_000, 10_000, 50_000] * 5 + [LARGEST])
    return random.randbytes(random.randint(largest // 2, largest))


def _chunks(body: bytes, random: Random) -> tuple[bytes, ...]:
    """Cut a body somewhere, so that there may be empty chunks, or none at all."""
    if not body and random.random() < 0.5:
        return ()
    cuts = sorted(random.randint(0, len(body)) for _ in range(random.choice([0, 0, 1, 2, 5])))
    return tuple(body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True))


def _lines(status: int, body: bytes, random: Random) -> Lines:
    charset = random.choice(["", "; charset=utf-8", "; charset=iso-8859-1", '; charset="utf-16"'])
    kind = random.choice(["text/html", "text/event-stream", "application/json", "image/png"])
    # `wsgiref.validate` wants none with these.
    lines = [] if status in (204, 304) else [("Content-Type", kind + charset)]
    some = [
        [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")],
        [
            ("Set-Cookie", "a=1; Path=/"),
            ("Set-Cookie", 'b="2, 3"; HttpOnly'),
            ("Set-Cookie", "a=2"),
        ],
        [("Link", "</a.css>; rel=preload"), ("link", "</b.js>; rel=preload")],
        [
            (
                "Cache-Control",
                random.choice(["public, max-age=60", "private", "no-store", "max-age=0"]),
            )
        ],
        [("Expires", "Thu, 01 Jan 2026 00:00:00 GMT"), ("CDN-Cache-Control", "max-age=7")],
        [("ETag", random.choice(['"a"', 'W/"b"'])), ("Vary", "Cookie")],
        [("Surrogate-Key", "own keys"), ("Surrogate-Control", "max-age=9")],
        [("X-Latin", "caf\xe9"), ("x-lower", ""), ("X-UPPER", "a  b")],
        [("Location", "/elsewhere"), ("Retry-After", "7"), ("Date", "yesterday")],
    ]
    for group in some:
        if random.random() < 0.25:
            lines += group
    random.shuffle(lines)
    return lines
