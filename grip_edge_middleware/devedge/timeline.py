"""The timeline: what happened at the edge lately, for a page that draws it as it happens.

GET /.grip-edge/timeline           the page
GET /.grip-edge/timeline/events    what happened, and what happens, as server-sent events

It shows everything, so it is served on the control port, to this machine only. It remembers the
last few hundred happenings, and keeps nothing for who reads too slowly.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from grip_edge_middleware.devedge.happenings import Happening, Tell, build_happening, said
from grip_edge_middleware.journal import Entry
from grip_edge_middleware.watchers import Watch

logger = logging.getLogger(__name__)

PATH = "/.grip-edge/timeline"
SIZE = 500
# Holds that are older than what is remembered and still open; beyond that, the oldest are left out.
MAX_OPEN = 100
# What comes within this time is sent together.
MOMENT_S = 0.05
KEEP_ALIVE_S = 15.0

_FOLDER = Path(__file__).parent / "page"
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(slots=True)
class Totals:
    """How often what happened, since the edge began."""

    requests: int = 0
    """Of clients."""
    hits: int = 0
    """Answers of the cache without the app."""
    misses: int = 0
    app: int = 0
    """Requests that reached the app."""
    open: int = 0
    """Clients that are held now."""
    saves: int = 0
    purges: int = 0
    publishes: int = 0
    pushes: int = 0
    """Messages to clients."""

    def count(self, happening: Happening) -> None:
        """Count one more."""
        match happening.kind, happening.source:
            case "request", "client":
                self.requests += 1
            case "request", "cache":
                self.app += 1
            case "answer", "cache" if happening.seen:
                self.hits += happening.seen != "MISS"
                self.misses += happening.seen == "MISS"
            case "save", _:
                self.saves += 1
            case "purge", _:
                self.purges += 1
            case "publish", _:
                self.publishes += 1
            case "push", _:
                self.pushes += happening.count


class Numbered(NamedTuple):
    """A happening and its place in the order."""

    number: int
    happening: Happening


class Timeline:
    """Remembers what happened lately, and tells who reads. For the event loop's thread only.

    `tell` is what the parts of the edge are given.
    """

    def __init__(self, *, size: int = SIZE, open_url: Callable[[], str] = str) -> None:
        self.totals = Totals()
        self.run = f"{time.time_ns():x}"
        """Which edge numbers them: another one begins anew."""
        self._open_url = open_url
        self._ring: deque[Numbered] = deque(maxlen=size)
        self._holds: dict[int, Numbered] = {}
        self._last = 0
        self._news = asyncio.Event()
        self._is_closed = False

    def tell(self, happening: Happening) -> None:
        """Remember what happens."""
        self._last += 1
        numbered = Numbered(self._last, happening)
        self._ring.append(numbered)
        if happening.kind == "hold":
            self._holds[happening.trip] = numbered
        elif happening.kind == "release":
            self._holds.pop(happening.trip, None)
        self.totals.count(happening)
        self.totals.open = len(self._holds)
        self._news.set()

    def since(self, number: int) -> list[Numbered] | None:
        """Return what came after a number; None if some of it is forgotten."""
        if self._last - number > len(self._ring):
            return None
        return list(islice(self._ring, len(self._ring) - (self._last - number), None))

    def remembered(self) -> list[Numbered]:
        """Return what there is: before the ring, the holds that are still open."""
        oldest = self._ring[0].number if self._ring else 0
        still_open = [held for held in self._holds.values() if held.number < oldest]
        return [*still_open[-MAX_OPEN:], *self._ring]

    def close(self) -> None:
        """End all readers."""
        self._is_closed = True
        self._news.set()

    async def follow(self, last_event_id: str = "") -> AsyncGenerator[str, None]:
        """Yield server-sent events: what is remembered, or came since, and what comes.

        It ends for who is so slow that something was forgotten meanwhile.
        """
        run, _, number = last_event_id.partition("-")
        known = int(number) if run == self.run and number.isdecimal() else None
        fresh = self.since(known) if known is not None and known <= self._last else None
        if fresh is None:
            yield "event: begin\ndata: {}\n\n"
            fresh = self.remembered()
        told = self._last
        yield self._events(fresh)
        while not self._is_closed:
            if told == self._last:
                yield await self._waited()
            if (fresh := self.since(told)) is None:
                return
            if fresh:
                told = self._last
                yield self._events(fresh)
                await asyncio.sleep(MOMENT_S)

    async def _waited(self) -> str:
        """Return once there is news, or a comment by which a reader that is gone is noticed."""
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(KEEP_ALIVE_S):
                await self._news.wait()
                return ""
        return ": still here\n\n"

    def _events(self, numbered: list[Numbered]) -> str:
        events = [
            f"id: {self.run}-{number}\ndata: {build_happening(happening)}\n\n"
            for number, happening in numbered
        ]
        state = json.dumps({**asdict(self.totals), "url": self._open_url()})
        return "".join((*events, f"event: state\ndata: {state}\n\n"))


# ---------------------------------------------------------------------------------------- saves


@contextmanager
def saves_told(tell: Tell, folder: Path | None = None) -> Iterator[None]:
    """Tell what the edges in other processes say was saved, while an event loop runs this block.

    Without a place to listen at, it is said once that saves are not shown.
    """
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        try:
            watch = stack.enter_context(Watch(folder))
        except OSError as error:
            logger.warning("the timeline goes without saves: %s", error)
            tell(Happening("note", "app", "app", f"Saves are not shown: {error}"))
        else:
            loop.add_reader(watch.fileno(), _read, watch, tell)
            stack.callback(loop.remove_reader, watch.fileno())
        yield


def _read(watch: Watch, tell: Tell) -> None:
    for entry in watch.entries(0):
        if entry.kind == "change":
            tell(saved(entry))


def saved(entry: Entry) -> Happening:
    """Return a change as what happened at the app, when it was committed."""
    behind_s = entry.behind_s or 0.0
    later = f"{behind_s * 1000:.1f} ms after its commit" if behind_s else None
    detail = said(told=later, process=entry.pid or None, topics=entry.count or None)
    return Happening("save", "app", "app", names=entry.names, detail=detail, at=entry.at - behind_s)


# --------------------------------------------------------------------------------------- serving

Answering = Callable[[Request], Coroutine[Any, Any, Response]]


def timeline_routes(timeline: Timeline) -> list[Route]:
    """Return what the control port serves of a timeline."""

    async def events(request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        return StreamingResponse(
            timeline.follow(last), headers=_HEADERS, media_type="text/event-stream"
        )

    served: dict[str, Answering] = {"": _file("timeline.html"), "/events": events}
    served |= {f"/{name}": _file(name) for name in ("timeline.css", "timeline.js")}
    return [Route(PATH + path, _local(each), methods=["GET"]) for path, each in served.items()]


def _file(name: str) -> Answering:
    async def answer(_: Request) -> Response:
        content = (_FOLDER / name).read_bytes()
        return Response(content, headers=_HEADERS, media_type=_TYPES[name.rpartition(".")[2]])

    return answer


def _local(answering: Answering) -> Answering:
    # By its name too: a page elsewhere may have a name of its own lead to this machine.
    async def answer(request: Request) -> Response:
        peer = request.client.host if request.client else ""
        if peer not in _LOCAL or request.url.hostname not in _LOCAL:
            return PlainTextResponse("The timeline is for this machine only.\n", 403)
        return await answering(request)

    return answer
