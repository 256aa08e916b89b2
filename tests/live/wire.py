"""The wire between Pushpin and Varnish: passes HTTP on, and takes as long as a test wants.

    with Wire(cache_port) as wire, Edge(cache_port=cache_port, proxied_port=wire.port) as edge:
        with wire.answers.holding("/counters/a") as held: ...

An answer is read whole from the cache before it travels: what it says was so then.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from checkpoint import Checkpoint

from grip_edge_middleware.grip import parse_grip_last

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the GRIP proxy."""

    path: str
    topics: tuple[str, ...]
    """What the next link is asked for; a page is asked for by its path only."""


class Wire:
    """Listens on `port` and passes everything on to `target_port`."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.asked: list[Asked] = []
        """What was asked for, and answered."""
        self.answers = Checkpoint()
        """Answers on their way to Pushpin, under their path and the topics of a next link."""
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Wire:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._pass, "127.0.0.1", 0, backlog=BACKLOG)
        self.port: int = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError):  # either end may have gone
            request, asked = await read_request(reader)
            answer = await self._ask(request)
            await asyncio.sleep(self.answers.takes_s(asked.path))
            await asyncio.wrap_future(self.answers.arrive(asked.path, *asked.topics))
            writer.write(answer)
            await writer.drain()
            self.asked.append(asked)
        writer.close()

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        try:
            # So that the end of the answer is the end of the connection.
            writer.write(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            return await reader.read()
        finally:
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, Asked]:
    head = await reader.readuntil(b"\r\n\r\n")
    first, _, rest = head.partition(b"\r\n")
    headers = http.client.parse_headers(io.BytesIO(rest))
    body = await reader.readexactly(int(headers.get("Content-Length", 0)))
    topics = parse_grip_last(", ".join(headers.get_all("Grip-Last", ())))
    return head + body, Asked(first.split()[1].decode(), tuple(topics))
