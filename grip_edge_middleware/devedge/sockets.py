"""WebSockets over HTTP: the app answers requests, and the GRIP proxy keeps the sockets."""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass, field, replace

from starlette.websockets import WebSocket

from grip_edge_middleware.devedge.events import (
    CONTENT_TYPE,
    CONTROL_PREFIX,
    Event,
    EventsError,
    build_events,
    message_prefix,
    parse_control,
    parse_events,
)
from grip_edge_middleware.devedge.exchange import Answer, Asked, whole_body
from grip_edge_middleware.devedge.holds import Verdict
from grip_edge_middleware.devedge.instruct import Channel, Item, content_of
from grip_edge_middleware.devedge.proxy import END, GripProxy

logger = logging.getLogger(__name__)

NORMAL, GOING_AWAY, FAILED, NO_STATUS = 1000, 1001, 1011, 1005
_OF_THE_SOCKET = frozenset({"content-length", "content-type", "accept"})


class Closed(Exception):  # noqa: N818 - a state
    """The app closes the socket."""

    def __init__(self, code: int = NORMAL, reason: str = "") -> None:
        self.code = code
        self.reason = reason


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

    async def serve(self) -> None:
        """Open the socket, if the app does, and serve it until one side closes it."""
        self.asked = replace(
            self.asked.without(_OF_THE_SOCKET),
            method="POST",
        ).saying(
            ("connection-id", uuid.uuid4().hex),
            ("content-type", CONTENT_TYPE),
            ("accept", CONTENT_TYPE),
            ("sec-websocket-extensions", "grip"),
        )
        self.session = self.proxy.open_socket(self.asked)
        try:
            await self._serve()
        except Closed as closed:
            await self.socket.close(closed.code, closed.reason)
        except EventsError as error:
            logger.warning("WebSocket %s: %s", self.asked.target, error)
            await self.socket.close(FAILED)
        finally:
            self.proxy.close_socket(self.session)

    async def _serve(self) -> None:
        answer = await self._post(Event("OPEN"))
        first, *others = await self._events(answer)
        if first.type != "OPEN":
            raise EventsError(f"expected OPEN, got {first.type}")
        self.prefix = message_prefix(answer)
        await self.socket.accept(answer.says("sec-websocket-protocol") or None)
        await self._obey(others)
        reading = asyncio.create_task(self._read())
        try:
            while not await self._step():
                pass
        finally:
            reading.cancel()

    async def _read(self) -> None:
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code", NO_STATUS)
                content = b"" if code == NO_STATUS else code.to_bytes(2, "big")
                await self.session.inbox.put(Event("CLOSE", content))
                return
            text = message.get("text")
            event = (
                Event("BINARY", message["bytes"]) if text is None else Event("TEXT", text.encode())
            )
            await self.session.inbox.put(event)

    async def _step(self) -> bool:
        """Do what comes next; return whether the client is gone."""
        news = await self.session.inbox.get()
        if news is END:
            raise Closed(GOING_AWAY)
        if isinstance(news, Event):
            if not self.is_detached:
                answer = await self._post(news)
                if news.type != "CLOSE":
                    await self._obey(await self._events(answer))
            return news.type == "CLOSE"
        if isinstance(news, Item) and self.session.verdict(news) is Verdict.DELIVER:
            self.proxy.note_push(self.session, news, content_of(news.formats["ws-message"]))
            await self._send(news)
        return False

    async def _post(self, event: Event) -> Answer:
        meta = [(f"meta-{name}", value) for name, value in self.meta.items()]
        answer = await self.proxy.ask(replace(self.asked.saying(*meta), body=build_events([event])))
        for name, value in answer.headers:
            if name.startswith("set-meta-"):
                self.meta[name.removeprefix("set-meta-")] = value
        return answer

    async def _events(self, answer: Answer) -> list[Event]:
        body = await whole_body(answer)
        if answer.status != 200 or answer.says("content-type").partition(";")[0] != CONTENT_TYPE:
            raise EventsError(f"the app answered {answer.status} without {CONTENT_TYPE}")
        return parse_events(body)

    async def _obey(self, events: list[Event]) -> None:
        for event in events:
            if event.type in ("TEXT", "BINARY"):
                await self._hear(event)
            elif event.type == "CLOSE":
                raise Closed(int.from_bytes(event.content[:2], "big") or NORMAL)
            elif event.type == "DISCONNECT":
                raise Closed(FAILED)

    async def _hear(self, event: Event) -> None:
        """Do what a message of the app says, or pass it on."""
        if self.prefix is None:
            return await self._send_content(event.content, is_text=event.type == "TEXT")
        if event.content.startswith(CONTROL_PREFIX):
            return self._control(event.content)
        if event.content.startswith(self.prefix.encode()):
            content = event.content.removeprefix(self.prefix.encode())
            await self._send_content(content, is_text=event.type == "TEXT")
        return None

    def _control(self, content: bytes) -> None:
        message = parse_control(content)
        name = str(message.get("channel", ""))
        match message.get("type"):
            case "subscribe":
                filters = tuple(message.get("filters") or ())
                self.proxy.subscribe(self.session, Channel(name, message.get("prev-id"), filters))
            case "unsubscribe":
                self.proxy.unsubscribe(self.session, name)
            case "detach":
                self.is_detached = True
            case "set-meta":
                self.meta[str(message.get("name", "")).lower()] = str(message.get("value", ""))

    async def _send(self, item: Item) -> None:
        message = item.formats["ws-message"]
        if message.get("action") == "close":
            raise Closed(int(message.get("code", NORMAL)), str(message.get("reason", "")))
        kind = message.get("type", "binary" if "content-bin" in message else "text")
        if kind in ("text", "binary"):  # the server pings by itself
            await self._send_content(content_of(message), is_text=kind == "text")

    async def _send_content(self, content: bytes, *, is_text: bool) -> None:
        if is_text:
            await self.socket.send_text(content.decode(errors="replace"))
        else:
            await self.socket.send_bytes(content)
