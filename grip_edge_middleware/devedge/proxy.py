"""The GRIP proxy: keeps clients as the app says, and passes on what is published.

It asks and answers as Pushpin 1.36 does, so what an app says to the one holds for the other.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import jwt

from grip_edge_middleware.devedge.exchange import (
    BODILESS,
    Answer,
    Asked,
    Fetch,
    OriginFailed,
    pieces,
    plain,
    whole,
    whole_body,
)
from grip_edge_middleware.devedge.happenings import Happening, Tell, nobody, said, text_of
from grip_edge_middleware.devedge.holds import Channels, Held, Verdict
from grip_edge_middleware.devedge.instruct import (
    Channel,
    Instruct,
    InstructError,
    Item,
    content_of,
    parse_instruct,
)
from grip_edge_middleware.devedge.told import FanOut, Pushed, new_trip
from grip_edge_middleware.websocket_events import CONTENT_TYPE, Event

logger = logging.getLogger(__name__)

FEATURES = "status, link:next, filter:require-sub"
SIGNATURE_LIVES_S = 3600
# Items that wait for one client; beyond that they are dropped.
MAX_WAITING = 100
# How long after its first subscriber all clients of a channel are asked for what they missed.
FIRST_SUBSCRIBER_S = 1.0
# After which a failing next link is asked again, with up to a second more; then the stream ends.
RETRIES_S = (1, 2, 4, 8, 16)
RETRY_SPREAD_S = 1.0
_OF_THE_BODY = frozenset({"content-length", "content-encoding", "transfer-encoding"})


class Signal:
    """What a session is told, apart from items."""


ASK = Signal()
END = Signal()


@dataclass(eq=False, slots=True)
class Session:
    """One client that is held."""

    asked: Asked
    instruct: Instruct
    held: Held
    inbox: asyncio.Queue[Item | Signal | Event] = field(
        default_factory=lambda: asyncio.Queue(MAX_WAITING)
    )
    keep_alive_due: float = math.inf
    number: int = field(default_factory=new_trip)

    def tell(self, news: Item | Signal) -> None:
        """Have the session hear of something, if it is not too far behind."""
        with suppress(asyncio.QueueFull):
            self.inbox.put_nowait(news)

    def tell_said(self, event: Event) -> None:
        """Have a WebSocket's app hear of what its client says."""
        with suppress(asyncio.QueueFull):
            self.inbox.put_nowait(event)

    def drop_waiting(self) -> None:
        """Forget what was not heard yet."""
        while not self.inbox.empty():
            self.inbox.get_nowait()

    async def news(self, until: float) -> Item | Signal | Event | None:
        """Return what comes next, None if nothing comes in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until if until < math.inf else None):
                return await self.inbox.get()
        return None

    def verdict(self, news: Item | Signal | Event | None) -> Verdict:
        """Judge what came; None is the next link that is due."""
        return self.held.take(news, now()) if isinstance(news, Item) else Verdict.ASK

    @property
    def next_due(self) -> float:
        """When something is to be done for the session if nothing comes."""
        return min(self.keep_alive_due, self.held.next_link_due(self.instruct))

    def is_idle(self, news: Item | Signal | Event | None) -> bool:
        """Whether nothing came and it is not time for the next link."""
        return news is None and now() < self.held.next_link_due(self.instruct)

    def kept_alive(self) -> bytes:
        """Return what an idle client is sent."""
        self.restart_keep_alive()
        return self.instruct.keep_alive.content if self.instruct.keep_alive else b""

    def restart_keep_alive(self, *, after_news: bool = False) -> None:
        """Count the time anew; after an item only if it is that of silence."""
        keep_alive = self.instruct.keep_alive
        if keep_alive is None:
            self.keep_alive_due = math.inf
        elif not (after_news and keep_alive.is_interval):
            self.keep_alive_due = now() + keep_alive.timeout_s


class GripProxy:
    """Holds the clients of `fetch`."""

    def __init__(
        self, fetch: Fetch, *, sig_key: str, sig_iss: str = "pushpin", tell: Tell = nobody
    ) -> None:
        self._fetch = fetch
        self._sig_key = sig_key
        self._sig_iss = sig_iss
        self._channels: Channels[Session] = Channels()
        self._reads: dict[tuple[str, ...], asyncio.Task[Answer]] = {}
        self._is_closed = False
        self._tell = tell
        self._fan_out = FanOut(tell)

    async def __call__(self, asked: Asked, /) -> Answer:
        """Answer a client: at once, when there is news, or by a stream that goes on."""
        asked = asked.without(name for name, _ in asked.headers if name.startswith("grip-"))
        if asked.says("content-type").partition(";")[0] == CONTENT_TYPE:
            return plain(403, "Client not allowed to send WebSocket events directly.")
        return await self._answered(asked, await self.ask(asked))

    def publish(self, items: Iterable[Item]) -> None:
        """Tell whoever is subscribed."""
        for item in items:
            sessions = self._channels.admit(item, now())
            self._tell_publish(item, len(sessions))
            for session in sessions:
                session.tell(item)

    def recover(self) -> None:
        """Have everybody asked for what they missed."""
        self._channels.forget()
        sessions = self._channels.sessions
        self._tell(Happening("recover", "app", "proxy", count=len(sessions)))
        for session in sessions:
            session.tell(ASK)

    def is_watched(self, channel: str) -> bool:
        """Whether anybody is subscribed to a channel."""
        return bool(self._channels.sessions_of(channel))

    def close(self) -> None:
        """End all streams, and answer all long-polls."""
        self._is_closed = True
        for session in self._channels.sessions:
            session.drop_waiting()
            session.tell(END)

    async def ask(self, asked: Asked, last: Iterable[tuple[str, str]] = ()) -> Answer:
        """Ask as the GRIP proxy: signed, and saying what a client has."""
        headers = [
            *((n, v) for n, v in asked.headers if n != "accept-encoding"),
            ("grip-sig", signature(self._sig_key, self._sig_iss, int(time.time()))),
            ("grip-feature", FEATURES),
            *last,
        ]
        try:
            return await self._fetch(replace(asked, headers=headers))
        except OriginFailed as failure:
            return plain(502, f"Error while proxying to origin: {failure}")

    async def _answered(self, asked: Asked, answer: Answer) -> Answer:
        try:
            instruct = parse_instruct(answer, asked.target)
        except InstructError as error:
            logger.warning("%s %s: %s", asked.method, asked.target, error)
            return plain(502, "Error while proxying to origin.")
        if instruct.hold == "response":
            return await self._polled(asked, await whole(answer), instruct)
        if instruct.hold == "stream" or instruct.is_followed_at_once:
            head = bare(answer.without(_OF_THE_BODY), instruct.status)
            return replace(head, body=self._streamed(asked, answer, instruct))
        return bare(answer, instruct.status)

    # ------------------------------------------------------------------------------- long-polls

    async def _polled(self, asked: Asked, answer: Answer, instruct: Instruct) -> Answer:
        """Answer when there is news, or the time is up."""
        session = self._open("http-response", asked, instruct)
        try:
            until = now() + instruct.timeout_s
            while isinstance(news := await session.news(until), Item) or news is ASK:
                verdict = session.verdict(news)
                if isinstance(news, Item) and verdict is Verdict.DELIVER:
                    format_ = news.formats["http-response"]
                    self.note_push(session, news, content_of(format_, "body"))
                    return overridden(bare(answer), format_)
                if verdict is Verdict.ASK:
                    break
            else:
                return bare(answer, instruct.status)
        finally:
            self._close(session, lingers=True)
        return await self._answered(asked, await self.ask(asked, session.held.grip_last))

    # ---------------------------------------------------------------------------------- streams

    async def _streamed(
        self, asked: Asked, answer: Answer, instruct: Instruct
    ) -> AsyncGenerator[bytes, None]:
        """Yield the body, and then what is published."""
        session = self._open("http-stream", asked, instruct)
        try:
            async for piece in pieces(answer):
                yield piece
            if instruct.closes or answer.status in BODILESS or asked.method == "HEAD":
                return
            async for piece in self._held(session):
                yield piece
        finally:
            self._close(session)

    async def _held(self, session: Session) -> AsyncGenerator[bytes, None]:
        missed = 0  # what came while the next link was asked, and what it answered may contain
        session.restart_keep_alive()
        while not self._is_closed and (news := await session.news(session.next_due)) is not END:
            if session.is_idle(news):
                yield session.kept_alive()
                continue
            was_missed, missed = missed > 0, max(missed - 1, 0)
            verdict = session.verdict(news)
            if isinstance(news, Item) and verdict is Verdict.DELIVER:
                format_ = news.formats["http-stream"]
                if format_.get("action") == "close":
                    return
                session.restart_keep_alive(after_news=True)
                if content := content_of(format_):
                    self.note_push(session, news, content)
                    yield content
            elif verdict is Verdict.ASK and session.instruct.next_link and not was_missed:
                session.drop_waiting()
                async for piece in self._caught_up(session):
                    yield piece
                if session.instruct.hold is None:
                    return
                missed = session.inbox.qsize()

    async def _caught_up(self, session: Session) -> AsyncGenerator[bytes, None]:
        """Yield what the next link says that the client has missed."""
        while True:
            link = session.instruct.next_link
            answer = await self._read_next_link(session, link)
            try:
                instruct = parse_instruct(answer, link)
            except InstructError as error:
                logger.warning("GET %s: %s", link, error)
                instruct = Instruct()
            if answer.status // 100 != 2:
                instruct = Instruct()
            elif body := await whole_body(answer):
                self._note_catch_up(session, body)
                yield body
            self._hold_again(session, instruct)
            if not instruct.is_followed_at_once:
                return

    async def _read_next_link(self, session: Session, link: str) -> Answer:
        """Ask until there is an answer, or it is in vain. Who asks the same shares it."""
        host = session.asked.says("host")
        for retry_s in (*RETRIES_S, None):
            answer = await self._read(link, host, session.held.grip_last)
            if answer.status // 100 == 2 or retry_s is None:
                break
            await asyncio.sleep(retry_s + random.uniform(0, RETRY_SPREAD_S))  # noqa: S311
        return answer

    async def _read(self, link: str, host: str, last: list[tuple[str, str]]) -> Answer:
        # As Pushpin, by path and Grip-Last, and until it is read whole: a read that began before
        # a change may so be given to who comes after it.
        shared = (link.partition("?")[0], *(value for _, value in last))
        read = self._reads.get(shared)
        if read is None:
            asked = Asked("GET", link, [("host", host), ("accept", "*/*")])
            read = self._reads[shared] = asyncio.create_task(self._read_whole(asked, last))
            read.add_done_callback(lambda _: self._reads.pop(shared, None))
        return await asyncio.shield(read)

    async def _read_whole(self, asked: Asked, last: list[tuple[str, str]]) -> Answer:
        try:
            return await whole(await self.ask(asked, last))
        except OriginFailed as failure:
            return plain(502, str(failure))

    # --------------------------------------------------------------------------------- sessions

    def open_socket(self, asked: Asked) -> Session:
        """Return the session of a WebSocket, which is subscribed to nothing yet."""
        return self._open("ws-message", asked, Instruct())

    def close_socket(self, session: Session) -> None:
        """End the session of a WebSocket."""
        self._close(session)

    def subscribe(self, session: Session, channel: Channel) -> None:
        """Subscribe a WebSocket to one more channel."""
        session.held.add(channel, now())
        self._channels.join(session, [channel.name], now())
        self._tell_hold(session, session.instruct)

    def unsubscribe(self, session: Session, name: str) -> None:
        """Undo `subscribe`."""
        session.held.drop(name)
        self._channels.leave(session, [name], now())

    def _open(self, format_: str, asked: Asked, instruct: Instruct) -> Session:
        session = Session(asked, instruct, Held.begin(format_, instruct.channels, now()))
        first = self._channels.join(session, session.held.have, now())
        if first:
            asyncio.get_running_loop().call_later(FIRST_SUBSCRIBER_S, self._ask_all, first)
        if instruct.is_followed_at_once or self._channels.is_behind(instruct.channels):
            session.tell(ASK)
        self._tell_hold(session, instruct)
        return session

    def _hold_again(self, session: Session, instruct: Instruct) -> None:
        held = Held.begin(session.held.format, instruct.channels, now())
        self._channels.leave(session, session.held.have.keys() - held.have.keys(), now())
        self._channels.join(session, held.have.keys() - session.held.have.keys(), now())
        session.held, session.instruct = held, instruct
        session.restart_keep_alive()

    def _close(self, session: Session, *, lingers: bool = False) -> None:
        self._channels.leave(session, session.held.have, now(), lingers=lingers)
        names = tuple(session.held.have)
        self._tell(Happening("release", "proxy", "client", trip=session.number, names=names))

    def _ask_all(self, names: Iterable[str]) -> None:
        for name in names:
            for session in self._channels.sessions_of(name):
                session.tell(ASK)

    # ------------------------------------------------------------------------------ the timeline

    def note_push(self, session: Session, item: Item, content: bytes) -> None:
        """Note that a client is sent what was published."""
        self._fan_out.reach(session.number, Pushed(item.channel, content, item.id))

    def _note_catch_up(self, session: Session, content: bytes) -> None:
        name = next(iter(session.held.have), "")
        self._fan_out.reach(session.number, Pushed(name, content, why="missed"))

    def _tell_hold(self, session: Session, instruct: Instruct) -> None:
        have = session.held.have
        self._tell(
            Happening(
                "hold",
                "proxy",
                "client",
                session.held.format,
                session.number,
                names=tuple(have),
                # Which request opened it.
                holds=(session.asked.trip,),
                detail=tuple((name, f"has version {version}") for name, version in have.items())
                + said(next_link=instruct.next_link or None),
            )
        )

    def _tell_publish(self, item: Item, members: int) -> None:
        contents = [content_of(f, n) for f in item.formats.values() for n in ("content", "body")]
        content = max(contents, key=len, default=b"")
        self._tell(
            Happening(
                "publish",
                "app",
                "proxy",
                "message" if content else "marker",
                names=(item.channel,),
                count=members,
                detail=said(
                    id=item.id,
                    prev_id=item.prev_id,
                    formats=", ".join(item.formats),
                    content=text_of(content) or None,
                ),
            )
        )


def bare(answer: Answer, status: int | None = None) -> Answer:
    """Return what a client gets: nothing of GRIP, and the status that GRIP asks for."""
    answer = answer.without(name for name, _ in answer.headers if name.startswith("grip-"))
    if status is None:
        return answer
    body = b"" if status in BODILESS else answer.body
    return replace(answer, status=status, body=body)


def overridden(answer: Answer, format_: Mapping[str, Any]) -> Answer:
    """Return a held response with what was published in its place."""
    lines = [(name.lower(), value) for name, value in dict(format_.get("headers") or {}).items()]
    status = int(format_.get("code", 200))
    body = b"" if status in BODILESS else content_of(format_, "body")
    return replace(answer.without(_OF_THE_BODY).saying(*lines), status=status, body=body)


def now() -> float:
    """Return the clock of all due times here: the event loop's."""
    return asyncio.get_running_loop().time()


@lru_cache(2)
def signature(key: str, iss: str, second: int) -> str:
    """Return the `Grip-Sig` of one second."""
    return jwt.encode({"iss": iss, "exp": second + SIGNATURE_LIVES_S}, key, "HS256")
