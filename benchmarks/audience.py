"""Thousands of stream clients in one thread that do as little as they can: they note when.

with Audience(url, 1_000) as audience:
    commit()
    times = audience.told(b"data: 2", timeout_s=10)
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable
from types import TracebackType
from urllib.parse import urlsplit

# More than 100 connects at the same time were seen to give 502s in Pushpin.
CONNECTS_AT_ONCE = 50
HEAD_WITHIN_S = 20.0


class Audience:
    """So many clients of one URL, held."""

    def __init__(self, url: str, size: int) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._address = parts.hostname, parts.port or 80
        head = (f"GET {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Accept: text/event-stream")
        self._request = "\r\n".join([*head, "", ""]).encode()
        self._size = size
        self._sockets: dict[int, socket.socket] = {}
        self._heard: dict[int, bytes] = {}
        self._ended: set[int] = set()

    def __enter__(self) -> Audience:
        self._poll = select.epoll()
        while (left := self._size - len(self._sockets)) > 0:
            self._connect(min(left, CONNECTS_AT_ONCE))
        self._heard.clear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._poll.close()
        for client in self._sockets.values():
            client.close()

    def told(self, needle: bytes, timeout_s: float) -> list[float]:
        """Return when each got what is looked for, in monotonic seconds. Fewer if it took long."""
        times = self._wait(needle, set(self._sockets), timeout_s)
        self._heard.clear()
        return sorted(times.values())

    def _connect(self, number: int) -> None:
        new = [self._open() for _ in range(number)]
        answered = self._wait(b"\n\r\n", new, HEAD_WITHIN_S)  # a head, and its first chunk
        if refused := [fd for fd in new if b" 200 " not in self._heard.get(fd, b"")[:20]]:
            heard = self._heard.get(refused[0], b"")[:100]
            raise ConnectionError(f"{len(answered)} of {number} are held; one was told {heard!r}")

    def _open(self) -> int:
        client = socket.create_connection(self._address)
        client.sendall(self._request)
        client.setblocking(False)
        self._sockets[client.fileno()] = client
        self._poll.register(client, select.EPOLLIN)
        return client.fileno()

    def _wait(self, needle: bytes, whom: Iterable[int], timeout_s: float) -> dict[int, float]:
        found: dict[int, float] = {}
        waiting = set(whom)
        deadline = time.monotonic() + timeout_s
        while waiting - self._ended and (left_s := deadline - time.monotonic()) > 0:
            for fd, _ in self._poll.poll(left_s):
                heard = self._heard[fd] = self._heard.get(fd, b"") + self._read(fd)
                if fd in waiting and needle in heard:
                    found[fd] = time.monotonic()
                    waiting.discard(fd)
        return found

    def _read(self, fd: int) -> bytes:
        try:
            content = self._sockets[fd].recv(65_536)
        except OSError:
            content = b""
        if not content:  # ended: nobody waits for it any more
            self._poll.unregister(fd)
            self._ended.add(fd)
        return content
