"""How our requests go out: one client, kept alive, with a limit on everything."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import httpcore2 as httpcore
import httpx2 as httpx

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response, parse_retry_after

# What a target answers is judged by its first bytes; no more is ever held in memory.
MAX_ANSWER_BYTES = 65_536
# How the reason begins when it is the time that was up.
NO_ANSWER = "no answer within"


class Transport(Protocol):
    """Sends one request and waits for its answer."""

    def send(self, request: Request, *, max_bytes: int = MAX_ANSWER_BYTES) -> Response:
        """Return the answer, whatever its status; DeliveryError if there was none in time."""

    def close(self) -> None:
        """Close what is open. A later `send` opens it again."""


class HttpTransport:
    """HTTP/1.1 through httpx2. Thread-safe, and a fork gets connections of its own.

    `timeout_s` limits everything from the connect to the last byte of the answer together.
    """

    _client: httpx.Client | None

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._deadline = _Deadline()
        self._start_anew()

    def send(self, request: Request, *, max_bytes: int = MAX_ANSWER_BYTES) -> Response:
        """Return the answer; DeliveryError says why there is none, and never what was sent."""
        answer, goes_on = self._ask(request, max_bytes, linger_s=None)
        if goes_on:
            target = _target(request)
            raise DeliveryError(target, f"answered more than {max_bytes} bytes")
        return answer

    def begin(
        self, request: Request, *, linger_s: float, max_bytes: int = MAX_ANSWER_BYTES
    ) -> tuple[Response, bool]:
        """Return what came of the answer within `linger_s` after its head, and if it goes on.

        A stream does. DeliveryError as for `send`, if there was no head in time.
        """
        return self._ask(request, max_bytes, linger_s=linger_s)

    def _ask(
        self, request: Request, max_bytes: int, *, linger_s: float | None
    ) -> tuple[Response, bool]:
        with (
            _explained(_target(request), self._timeout_s),
            self._in_time().stream(
                request.method, request.url, headers=dict(request.headers), content=request.body
            ) as answer,
        ):
            if linger_s is not None:
                self._deadline.at = time.monotonic() + linger_s
            body, goes_on = bytearray(), False
            try:
                for chunk in answer.iter_bytes():
                    body.extend(chunk)
                    if goes_on := len(body) > max_bytes:
                        break
            except httpx.TimeoutException:
                if linger_s is None:
                    raise
                goes_on = True
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Response(answer.status_code, headers, bytes(body[:max_bytes])), goes_on

    def close(self) -> None:
        """Close idle connections."""
        self._check_process()
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _in_time(self) -> httpx.Client:
        client = self._open()  # which takes its time, the first time
        self._deadline.at = time.monotonic() + self._timeout_s
        return client

    def _open(self) -> httpx.Client:
        self._check_process()
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(timeout=self._timeout_s, follow_redirects=False)
                _limit(self._client, self._deadline)
            return self._client

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            # A fork: the sockets are the parent's, so they are neither used nor closed.
            self._start_anew()

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._client = None
        self._pid = os.getpid()


def _target(request: Request) -> str:
    return request.url.partition("?")[0]


@contextmanager
def _explained(target: str, timeout_s: float) -> Iterator[None]:
    """Raise DeliveryError for whatever goes wrong."""
    try:
        yield
    except httpx.TimeoutException:
        raise DeliveryError(target, f"{NO_ANSWER} {timeout_s:g} s") from None
    except httpx.LocalProtocolError:
        # Its text repeats the header, which may be a token.
        raise DeliveryError(target, "a header of the request cannot be sent") from None
    except httpx.HTTPError as error:
        raise DeliveryError(target, f"{type(error).__name__}: {error}") from None
    except DeliveryError:
        raise
    except Exception as error:
        # A URL or a header that cannot be, certificates that are not there, ...
        raise DeliveryError(target, f"cannot be asked: {type(error).__name__}") from None


class _Deadline(threading.local):
    """When the running request of this thread must be over, in monotonic seconds."""

    at: float = math.inf

    def shorten(self, timeout_s: float | None) -> float:
        left_s = self.at - time.monotonic()
        return max(0.0, left_s if timeout_s is None else min(timeout_s, left_s))


def _limit(client: httpx.Client, deadline: _Deadline) -> None:
    """Have the client keep to the deadline; httpx itself limits only the silence between bytes.

    httpcore takes a network backend, but httpx does not hand one on.
    """
    for transport in (client._transport, *client._mounts.values()):
        if (pool := getattr(transport, "_pool", None)) is not None:
            pool._network_backend = _DeadlineBackend(pool._network_backend, deadline)


class _DeadlineBackend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend, deadline: _Deadline) -> None:
        self._backend = backend
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left_s = self._deadline.shorten(timeout)
        if left_s == 0.0:
            # A socket would take a timeout of 0 for "do not wait", which is another error.
            raise httpcore.ConnectTimeout
        stream = self._backend.connect_tcp(host, port, left_s, local_address, socket_options)
        return _DeadlineStream(stream, self._deadline)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left_s = self._deadline.shorten(timeout)
        if left_s == 0.0:  # as above
            raise httpcore.ReadTimeout
        return self._stream.read(max_bytes, left_s)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _DeadlineStream(
            self._stream.start_tls(ssl_context, server_hostname, timeout), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def retry_after_s(response: Response) -> float | None:
    """Return the seconds that a response asks us to wait."""
    return parse_retry_after(response.headers.get("retry-after"), now=time.time())
