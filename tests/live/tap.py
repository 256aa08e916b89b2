"""A tap: passes purges or publishes on to a real Varnish or Pushpin, and notes what went by.

They can be held before they are passed on and after they took effect, refused, and lost.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from checkpoint import Checkpoint

PASSED_ON = ("xkey-purge", "xkey-hard", "content-type", "authorization")
ANSWERED = ("Grip-Edge-Purged", "Content-Type")

Answer = tuple[int, dict[str, str], bytes]
SWALLOWED: Answer = (200, {"Grip-Edge-Purged": "0"}, b"")


@dataclass(frozen=True, slots=True)
class Passage:
    """One request that was answered, and when it arrived and was acknowledged."""

    method: str
    names: tuple[str, ...]
    """The keys of a purge, the channels of a publish."""
    body: bytes
    arrived: float
    answered: float
    status: int


class Tap:
    """Listens on `port` and passes everything on to `target_port`."""

    def __init__(self, target_port: int) -> None:
        self.passages: list[Passage] = []
        self.arrivals = Checkpoint()
        """Requests that are not passed on yet, under the names that they carry."""
        self.answers = Checkpoint()
        """Acknowledgements: what was asked is done, and who asked does not know it yet."""
        self.is_broken = False
        """Answers 500 and passes nothing on."""
        self.swallows = False
        """Acknowledges everything and passes nothing on."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, target_port))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> Tap:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def with_name(self, name: str) -> list[Passage]:
        """What went by for one key or channel."""
        return [passage for passage in list(self.passages) if name in passage.names]


def _handler(tap: Tap, target_port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Else the second of two small writes waits 40 ms for the acknowledgement of the first.
        disable_nagle_algorithm = True

        def answer(self) -> None:
            arrived = time.monotonic()
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            names = names_of(self.path, self.headers.get("xkey-purge"), body)
            tap.arrivals.wait(*names)
            if tap.is_broken:
                self.send_error(500)
                return
            try:
                status, headers, content = SWALLOWED if tap.swallows else self.pass_on(body)
            except OSError:
                # The target is down or hangs: so is the tap.
                self.close_connection = True
                return
            # Before the caller has the answer: what it does next comes after this in the list.
            answered = time.monotonic()
            tap.passages.append(Passage(self.command, names, body, arrived, answered, status))
            tap.answers.wait(*names)
            self.send(status, headers, content)

        def pass_on(self, body: bytes) -> Answer:
            headers = {n: v for n, v in self.headers.items() if n.lower() in PASSED_ON}
            return ask(target_port, self.command, self.path, body, headers)

        def send(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
            self.send_response(status)
            for name in ANSWERED:
                if value := headers.get(name):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            with suppress(OSError):  # the caller may have given up
                self.end_headers()
                self.wfile.write(content)

        do_POST = do_PURGEKEYS = answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler


def ask(port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    target = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        target.request(method, path, body, dict(headers))
        response = target.getresponse()
        named = {name.title(): value for name, value in response.headers.items()}
        return response.status, named, response.read()
    finally:
        target.close()


def names_of(path: str, purged: str | None, body: bytes) -> tuple[str, ...]:
    if path == "/recover/":
        return ("/recover/",)
    if purged is not None:
        return tuple(purged.split())
    return tuple(item["channel"] for item in json.loads(body)["items"])
