"""HTTP clients for tests: plain requests, and hundreds of streams in one thread.

They say what came over the wire and when. They never retry, reconnect or follow.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPMessage
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

# More than 100 connects at the same time were seen to give 502s in Pushpin.
CONNECTS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Reply:
    """A response that ended."""

    status: int
    headers: HTTPMessage
    body: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk of a body."""

    content: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event."""

    data: str
    at: float
    id: str | None = None
    name: str = "message"


def request(
    url: str,
    headers: Headers = (),
    *,
    method: str = "GET",
    body: bytes | None = None,
    source: str = "",
    timeout_s: float = 10.0,
) -> Reply:
    """Send one request, from the address `source`, and read the whole response."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.netloc, timeout=timeout_s, source_address=(source, 0) if source else None
    )
    try:
        has_host = any(name.lower() == "host" for name, _ in pairs(headers))
        connection.putrequest(method, target_of(url), skip_host=has_host)
        for name, value in pairs(headers):
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read())
    finally:
        connection.close()


def publish(control_url: str, channel: str, **formats: Mapping[str, object]) -> Reply:
    """Publish one item, e.g. `publish(url, "c", **{"http-stream": {"content": "x"}})`."""
    body = json.dumps({"items": [{"channel": channel, "formats": formats}]}).encode()
    return request(f"{control_url}/publish/", method="POST", body=body)


class StreamClient:
    """A response that is read while it arrives.

    async with StreamClient(url) as client:
        await client.event(lambda data: data == "1", timeout_s=5)
    """

    def __init__(self, url: str, headers: Headers = (), *, method: str = "GET") -> None:
        self.url = url
        self.method = method
        self.request_headers = pairs(headers)
        self.status = 0
        self.headers = HTTPMessage()
        self.chunks: list[Chunk] = []
        self.events: list[Event] = []
        self.is_ended = False
        # Cut off, rather than ended as HTTP ends a body.
        self.error: Exception | None = None
        self._parser = EventParser()
        self._changed = asyncio.Condition()
        self._reading: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> StreamClient:
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def body(self) -> bytes:
        """What has arrived so far."""
        return b"".join(chunk.content for chunk in self.chunks)

    async def connect(self, timeout_s: float = 10.0) -> StreamClient:
        """Send the request and return when the head of the response has arrived."""
        parts = urlsplit(self.url)
        reader, self._writer = await asyncio.open_connection(parts.hostname, parts.port)
        self._writer.write(self._request_head(parts.netloc))
        async with asyncio.timeout(timeout_s):
            await self._read_head(reader)
        self._reading = asyncio.create_task(self._read_body(reader))
        return self

    async def event(self, is_wanted: Callable[[str], bool], timeout_s: float = 5.0) -> Event:
        """The first event, past ones included, whose data is wanted."""

        def find() -> Event | None:
            return next((event for event in self.events if is_wanted(event.data)), None)

        await self._wait_for(lambda: find() is not None or self.is_ended, timeout_s)
        if (found := find()) is None:
            raise self._too_short()
        return found

    async def event_at(self, position: int, timeout_s: float = 5.0) -> Event:
        """The event at that position, counted from 0."""
        await self._wait_for(lambda: len(self.events) > position or self.is_ended, timeout_s)
        if len(self.events) <= position:
            raise self._too_short()
        return self.events[position]

    async def until(self, content: bytes, timeout_s: float = 5.0) -> None:
        """Wait until the body contains `content`."""
        await self._wait_for(lambda: content in self.body or self.is_ended, timeout_s)
        if content not in self.body:
            raise EOFError(f"{self.url} ended ({self.error!r}) after {self.body!r}")

    async def end(self, timeout_s: float = 5.0) -> None:
        """Wait until the response ends."""
        await self._wait_for(lambda: self.is_ended, timeout_s)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    def _request_head(self, host: str) -> bytes:
        lines = [f"{self.method} {target_of(self.url)} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in self.request_headers]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _read_head(self, reader: asyncio.StreamReader) -> None:
        first, _, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
        self.status = int(first.split()[1])
        self.headers = http.client.parse_headers(io.BytesIO(rest))

    async def _read_body(self, reader: asyncio.StreamReader) -> None:
        try:
            async for content in self._contents(reader):
                await self._receive(content)
        except (OSError, EOFError, ValueError) as error:
            self.error = error
        async with self._changed:
            self.is_ended = True
            self._changed.notify_all()

    def _contents(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        if self.method == "HEAD" or self.status in (204, 304):
            return exactly(reader, 0)
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return chunks(reader)
        length = self.headers.get("Content-Length")
        return exactly(reader, int(length)) if length is not None else to_the_end(reader)

    async def _receive(self, content: bytes) -> None:
        now = time.monotonic()
        async with self._changed:
            self.chunks.append(Chunk(content, now))
            self.events += self._parser.feed(content, now)
            self._changed.notify_all()

    def _too_short(self) -> EOFError:
        return EOFError(f"{self.url} ended ({self.error!r}) after {self.events}")

    async def _wait_for(self, is_true: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(is_true)
        except TimeoutError:
            raise TimeoutError(f"{self.url} in {timeout_s:g} s: {self.body!r}") from None


@asynccontextmanager
async def connected(clients: Iterable[StreamClient]) -> AsyncIterator[list[StreamClient]]:
    """Connect many clients, a few at a time, and close them at the end."""
    clients = list(clients)
    slots = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def connect(client: StreamClient) -> None:
        async with slots:
            await client.connect()

    try:
        await asyncio.gather(*map(connect, clients))
        yield clients
    finally:
        await asyncio.gather(*(client.close() for client in clients))


@dataclass(slots=True)
class EventParser:
    """Server-sent events from chunks that may end anywhere.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """

    _rest: bytes = b""
    _data: list[str] = field(default_factory=list)
    _name: str = ""
    _id: str | None = None

    def feed(self, content: bytes, now: float) -> list[Event]:
        """The events that `content` completes."""
        *lines, self._rest = (self._rest + content).split(b"\n")
        found = (self._line(line.rstrip(b"\r").decode(), now) for line in lines)
        return [event for event in found if event is not None]

    def _line(self, line: str, now: float) -> Event | None:
        if not line:
            return self._dispatch(now)
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id":
            self._id = value
        return None

    def _dispatch(self, now: float) -> Event | None:
        data, name = self._data, self._name or "message"
        self._data, self._name = [], ""
        return Event("\n".join(data), now, self._id, name) if data else None


async def chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """A chunked body: RFC 9112, section 7.1."""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers


async def exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    if size:
        yield await reader.readexactly(size)


async def to_the_end(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while content := await reader.read(65_536):
        yield content


def target_of(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)
