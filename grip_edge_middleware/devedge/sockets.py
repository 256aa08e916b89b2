"""WebSockets over HTTP: the app answers requests, and the GRIP proxy keeps the sockets.

As Pushpin 1.36 with `over_http`, but for what no ASGI server lets an app do: it neither sends
pings nor hears of pongs, nor is it told whether a client closed without a code or vanished. A ping
of the app's is answered here, as a client would; a pong goes nowhere.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from starlette.responses import Response
from starlette.websockets import WebSocket

from grip_edge_middleware.devedge.exchange import Answer, Asked, plain, whole_body
from grip_edge_middleware.devedge.holds import Verdict
from grip_edge_middleware.devedge.instruct import Channel, Item, content_of
from grip_edge_middleware.devedge.proxy import END, GripProxy, now
from grip_edge_middleware.websocket_events import (
    CONTENT_TYPE,
    CONTROL_PREFIX,
    Event,
    EventsError,
    build_close,
    build_events,
    message_prefix,
    parse_close,
    parse_control,
    parse_events,
)

logger = logging.getLogger(__name__)

NORMAL, GOING_AWAY, NO_STATUS = 1000, 1001, 1005
# What Pushpin takes a shorter one for.
MIN_INTERVAL_S = 20
# What of a client's headers is not asked on, and what of the app's are not for the client.
_OF_THE_SOCKET = frozenset({"content-length", "content-type", "accept", "connection-id"})
_OF_THE_APP = frozenset(
    {
        "content-length",
        "content-type",
        "keep-alive-interval",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
    }
)


class Closed(Exception):  # noqa: N818 - a state
    """The socket is closed. If the app does it, it hears of the client's answer."""

    def __init__(self, code: int = NORMAL, reason: str = "", told: Event | None = None) -> None:
        self.code = code
        self.reason = reason
        self.told = told


class Refused(Exception):  # noqa: N818 - a state
    """The app does not open the socket."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer


@dataclass(slots=True)
class Timed:
    """What is sent when its time has come: once, or whenever nothing else was for so long."""

    kind: str
    content: bytes
    timeout_s: float
    due: float

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> Self | None:
        """Read a control message; None if it takes back the last one."""
        timeout_s = float(message.get("timeout", 0))
        if "content" not in message and "content-bin" not in message:
            return None
        kind = str(message.get("message-type", "text"))
        return cls(kind, content_of(message), timeout_s, now() + timeout_s)


@dataclass(eq=False)
class GripSocket:
    """One client's socket. Its app is told what it says, and says what to send and subscribe to."""

    proxy: GripProxy
    asked: Asked
    socket: WebSocket
    prefix: str | None = None
    meta: dict[str, str] = field(default_factory=dict)
    is_detached: bool = False
    """The app has done its part: only what is published reaches the client."""
    interval_s: float = math.inf
    """How often the app wants to be asked, if it is not asked anyway."""
    asked_at: float = 0.0
    keep_alive: Timed | None = None
    delayed: Timed | None = None

    async def serve(self) -> None:
        """Open the socket, if the app does, and serve it until one side closes it."""
        asked = replace(self.asked.without(self._dropped()), method="POST")
        self.asked = asked.saying(
            ("connection-id", str(uuid.uuid4())),
            ("content-type", CONTENT_TYPE),
            ("accept", CONTENT_TYPE),
            ("sec-websocket-extensions", "grip"),
        )
        self.session = self.proxy.open_socket(self.asked)
        try:
            await self._serve()
        except Refused as refused:
            await self._refuse(refused.answer)
        except Closed as closed:
            await self.socket.close(closed.code, closed.reason)
            await self._tell_close(closed.told or Event("CLOSE"))
        except EventsError as error:
            # As Pushpin, without a word to the client: the connection ends.
            logger.warning("WebSocket %s: %s", self.asked.target, error)
        finally:
            self.proxy.close_socket(self.session)

    def _dropped(self) -> set[str]:
        meta = {name for name, _ in self.asked.headers if name.startswith("meta-")}
        return {*_OF_THE_SOCKET, *meta}

    async def _serve(self) -> None:
        await self._open()
        reading = asyncio.create_task(self._read())
        try:
            while not await self._step():
                pass
        finally:
            reading.cancel()

    # --- the handshake ------------------------------------------------------------------------

    async def _open(self) -> None:
        answer = await self._post(Event("OPEN"))
        body = await whole_body(answer)
        if answer.status != 200 or answer.says("content-type") != CONTENT_TYPE:
            raise Refused(replace(answer, body=body))
        try:
            events = parse_events(body)
            if events and events[0].type != "OPEN":
                raise EventsError(f"expected OPEN, got {events[0].type}")
            if not events and self.interval_s == math.inf:
                raise EventsError("expected OPEN, got nothing")
        except EventsError as error:
            logger.warning("WebSocket %s: %s", self.asked.target, error)
            raise Refused(plain(502, "Error while proxying to origin.")) from error
        self.prefix = message_prefix(answer.says("sec-websocket-extensions"))
        headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers
            if name not in _OF_THE_APP and not name.startswith("set-meta-")
        ]
        await self.socket.accept(answer.says("sec-websocket-protocol") or None, headers)
        await self._obey(events[1:])

    async def _refuse(self, answer: Answer) -> None:
        """Answer the handshake as the app does."""
        response = Response(await whole_body(answer), answer.status)
        response.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.saying(("content-length", str(len(response.body)))).headers
        ]
        await self.socket.send_denial_response(response)

    # --- what comes then ------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code", NO_STATUS)
                closed = build_close(code, message.get("reason") or "")
                await self.session.inbox.put(Event("CLOSE") if code == NO_STATUS else closed)
                return
            text = message.get("text")
            event = (
                Event("BINARY", message["bytes"]) if text is None else Event("TEXT", text.encode())
            )
            await self.session.inbox.put(event)

    async def _step(self) -> bool:
        """Do what comes next; return whether the client is gone."""
        news = await self.session.news(self._next_due)
        if news is END:
            raise Closed(GOING_AWAY)
        if news is None:
            await self._do_what_is_due()
        if isinstance(news, Event):
            if news.type == "CLOSE":
                await self._tell_close(news)
                return True
            await self._tell(news)
        elif isinstance(news, Item) and self.session.verdict(news) is Verdict.DELIVER:
            self.proxy.note_push(self.session, news, content_of(news.formats["ws-message"]))
            await self._send(news)
        return False

    @property
    def _next_due(self) -> float:
        timed = [each.due for each in (self.keep_alive, self.delayed) if each is not None]
        return min([self.asked_at + self.interval_s, *timed])

    async def _do_what_is_due(self) -> None:
        if self.delayed is not None and self.delayed.due <= now():
            delayed, self.delayed = self.delayed, None
            await self._send_content(delayed.content, delayed.kind)
        if self.keep_alive is not None and self.keep_alive.due <= now():
            await self._send_content(self.keep_alive.content, self.keep_alive.kind)
        if self.asked_at + self.interval_s <= now():
            await self._tell()

    async def _tell(self, *events: Event) -> None:
        """Tell the app, unless it has done its part, and do what it says."""
        if not self.is_detached:
            await self._obey(await self._events(await self._post(*events)))

    async def _tell_close(self, event: Event) -> None:
        if not self.is_detached:
            await self._post(event)

    async def _post(self, *events: Event) -> Answer:
        self.asked_at = now()
        meta = [(f"meta-{name}", value) for name, value in self.meta.items()]
        answer = await self.proxy.ask(replace(self.asked.saying(*meta), body=build_events(events)))
        if answer.status != 200 or answer.says("content-type") != CONTENT_TYPE:
            return answer
        if interval := answer.says("keep-alive-interval"):
            wanted = int(interval) if interval.isdecimal() else 0
            self.interval_s = max(wanted, MIN_INTERVAL_S) if wanted else math.inf
        for name, value in answer.headers:
            if name.startswith("set-meta-"):
                self.meta.pop(name.removeprefix("set-meta-"), None)
                if value:
                    self.meta[name.removeprefix("set-meta-")] = value
        return answer

    async def _events(self, answer: Answer) -> list[Event]:
        body = await whole_body(answer)
        if answer.status != 200 or answer.says("content-type") != CONTENT_TYPE:
            raise EventsError(f"the app answered {answer.status} without {CONTENT_TYPE}")
        return parse_events(body)

    # --- what the app says ----------------------------------------------------------------------

    async def _obey(self, events: list[Event]) -> None:
        for event in events:
            if event.type in ("TEXT", "BINARY"):
                await self._hear(event)
            elif event.type in ("PING", "PONG"):
                await self._send_content(event.content, event.type.lower())
            elif event.type == "CLOSE":
                code, reason = parse_close(event)
                raise Closed(code or NORMAL, reason, told=build_close(code or NORMAL))
            elif event.type in ("DISCONNECT", "OPEN"):
                raise EventsError(f"the app says {event.type}")

    async def _hear(self, event: Event) -> None:
        """Do what a message of the app says, or pass it on."""
        kind = event.type.lower()
        if self.prefix is None:
            return await self._send_content(event.content, kind)
        if event.type == "TEXT" and event.content.startswith(CONTROL_PREFIX):
            return await self._control(event.content)
        if event.content.startswith(self.prefix.encode()):
            await self._send_content(event.content.removeprefix(self.prefix.encode()), kind)
        return None

    async def _control(self, content: bytes) -> None:
        message = parse_control(content)
        name = str(message.get("channel", ""))
        match message.get("type"):
            case "subscribe":
                filters = tuple(message.get("filters") or ())
                self.proxy.subscribe(self.session, Channel(name, None, filters))
            case "unsubscribe":
                self.proxy.unsubscribe(self.session, name)
            case "detach":
                self.is_detached = True
            case "keep-alive":
                self.keep_alive = Timed.read(message)
            case "send-delayed":
                self.delayed = Timed.read(message)
            case "flush-delayed" if self.delayed is not None:
                self.delayed.due = now()
                await self._do_what_is_due()

    async def _send(self, item: Item) -> None:
        message = item.formats["ws-message"]
        if message.get("action") == "close":
            raise Closed(int(message.get("code", NORMAL)), str(message.get("reason", "")))
        kind = message.get("type", "binary" if "content-bin" in message else "text")
        await self._send_content(content_of(message), str(kind))

    async def _send_content(self, content: bytes, kind: str) -> None:
        if self.keep_alive is not None:
            self.keep_alive.due = now() + self.keep_alive.timeout_s
        if kind == "text":
            await self.socket.send_text(content.decode(errors="replace"))
        elif kind == "binary":
            await self.socket.send_bytes(content)
        elif kind == "ping":  # as a client answers, when it has been
            self.session.tell_said(Event("PONG", content))
