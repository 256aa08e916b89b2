"""How our requests go out: one client, kept alive, with a limit on everything."""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol

import httpx2 as httpx

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response, parse_retry_after

# What a target answers is judged by its first bytes; no more is ever held in memory.
MAX_ANSWER_BYTES = 65_536


class Transport(Protocol):
    """Sends one request and waits for its answer."""

    def send(self, request: Request, *, max_bytes: int = MAX_ANSWER_BYTES) -> Response:
        """Return the answer, whatever its status; DeliveryError if there was none in time."""

    def close(self) -> None:
        """Close what is open. A later `send` opens it again."""


class HttpTransport:
    """HTTP/1.1 through httpx2. Thread-safe, and a fork gets connections of its own.

    `timeout_s` limits the connect and the whole answer, not only the silence between its bytes.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._pid = os.getpid()

    def send(self, request: Request, *, max_bytes: int = MAX_ANSWER_BYTES) -> Response:
        """Return the answer; DeliveryError says why there is none."""
        deadline = time.monotonic() + self._timeout_s
        target = httpx.URL(request.url).netloc.decode("ascii", "replace")
        try:
            with self._open().stream(
                request.method, request.url, headers=dict(request.headers), content=request.body
            ) as answer:
                body = b""
                for chunk in answer.iter_bytes():
                    body += chunk
                    if time.monotonic() > deadline:
                        raise DeliveryError(target, self._too_late())
                    if len(body) > max_bytes:
                        raise DeliveryError(target, f"answered more than {max_bytes} bytes")
                headers = {name.lower(): value for name, value in answer.headers.items()}
                return Response(answer.status_code, headers, body)
        except httpx.TimeoutException:
            raise DeliveryError(target, self._too_late()) from None
        except httpx.HTTPError as error:
            raise DeliveryError(target, f"{type(error).__name__}: {error}") from None
        except httpx.InvalidURL as error:
            raise DeliveryError(target, f"the URL cannot be used: {error}") from None

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> httpx.Client:
        if self._pid != os.getpid():
            # A fork: the sockets are the parent's, so they are neither used nor closed.
            self._lock, self._client, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=self._timeout_s, follow_redirects=False)
            return self._client

    def _too_late(self) -> str:
        return f"no answer within {self._timeout_s:g} s"


def retry_after_s(response: Response) -> float | None:
    """Return the seconds that a response asks us to wait."""
    return parse_retry_after(response.headers.get("retry-after"), now=time.time())
