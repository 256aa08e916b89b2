"""One request and its answer, as they pass from part to part of the development edge.

Each part is a `Fetch`: the app, the cache in front of it, the GRIP proxy in front of that. None
knows which server it runs under.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

from grip_edge_middleware.cache_control import without
from grip_edge_middleware.types import Headers

# https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1: for one connection only.
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# https://www.rfc-editor.org/rfc/rfc9110#section-6.4.1
BODILESS = frozenset({204, 304})


class OriginFailed(Exception):  # noqa: N818 - a state, as in "origin failed"
    """The app cannot be reached, or broke off before it answered."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. Header names are lower case; the target is the path and query as they were sent.

    A body is read whole before anything is done with it.
    """

    method: str
    target: str
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    client: str = "127.0.0.1"
    trip: int = 0
    """Whose request it is part of, for the timeline; 0 is not known."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def says(self, name: str) -> str:
        """Return all lines of that name as one; empty if there is none."""
        return joined(self.headers, name)

    def without(self, names: Iterable[str]) -> Asked:
        """Return the request without the lines of these names."""
        return replace(self, headers=without(self.headers, frozenset(names)))

    def saying(self, *lines: tuple[str, str]) -> Asked:
        """Return the request with these lines, in place of any others of their names."""
        others = without(self.headers, {name for name, _ in lines})
        return replace(self, headers=[*others, *lines])


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. Header names are lower case. A body is whole, or comes in pieces, once."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes | AsyncGenerator[bytes, None] = b""

    def says(self, name: str) -> str:
        """Return all lines of that name as one; empty if there is none."""
        return joined(self.headers, name)

    def without(self, names: Iterable[str]) -> Answer:
        """Return the response without the lines of these names."""
        return replace(self, headers=without(self.headers, frozenset(names)))

    def saying(self, *lines: tuple[str, str]) -> Answer:
        """Return the response with these lines, in place of any others of their names."""
        others = without(self.headers, {name for name, _ in lines})
        return replace(self, headers=[*others, *lines])


class Fetch(Protocol):
    """Whoever answers requests."""

    async def __call__(self, asked: Asked, /) -> Answer:
        """Answer a request. OriginFailed if there is nobody who could."""


def joined(headers: Headers, wanted: str) -> str:
    """Return all lines of a name as one: RFC 9110, section 5.3."""
    return ", ".join(value for name, value in headers if name == wanted)


def plain(status: int, text: str) -> Answer:
    """Return a line of text that no cache keeps."""
    headers = [("content-type", "text/plain; charset=utf-8"), ("cache-control", "no-store")]
    return Answer(status, headers, f"{text}\n".encode())


async def whole(answer: Answer) -> Answer:
    """Return the answer once its body has arrived."""
    return replace(answer, body=await whole_body(answer))


async def whole_body(answer: Answer) -> bytes:
    """Return the body once it has arrived."""
    return b"".join([piece async for piece in pieces(answer)])


async def pieces(answer: Answer) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives. Who closes this early ends what makes the body."""
    if isinstance(answer.body, bytes):
        yield answer.body
        return
    async with aclosing(answer.body) as body:
        async for piece in body:
            yield piece
